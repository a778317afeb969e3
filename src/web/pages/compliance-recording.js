/**
 * One recording that was opened: its player, its facts, checking it, taking copies, how long it is kept, and who looked.
 * Names for tests: #facts, #verify, #verify-result, #download-…, #export-…, #hold, #retention, #destroy, #history.
 */

import { Problem } from "./api.js";
import { address } from "./compliance-api.js";
import { ask } from "./compliance-ask.js";
import { beginOfDay, day, moment, percent, plural, size, t, time, word } from "./compliance-i18n.js";
import { player } from "./compliance-player.js";
import { problemWords } from "./compliance-problems.js";
import { badges, field } from "./compliance-search.js";
import { h, setText } from "./dom.js";
import { elapsed, roleName } from "./i18n.js";

/** Pause between two looks at a job, milliseconds. */
const JOB_EVERY_MS = 700;

/**
 * @typedef {object} Page
 * @property {(error: unknown) => void} fail
 * @property {() => void} clear takes away what `fail` showed
 * @property {(text: string) => void} announce
 * @property {() => void} back
 * @property {(found: import("./compliance-api.js").Found) => void} reopen
 */

/**
 * @param {import("./compliance-api.js").Compliance} api
 * @param {import("./compliance-api.js").Found} found
 * @param {import("./compliance-api.js").Access} access
 * @param {Page} page
 */
export async function recordingScreen(api, found, access, page) {
  let closed = false;
  const sealed = found.revision > 0 && found.state !== "destroyed";
  /** @type {import("./compliance-api.js").Manifest | null} */
  const manifest = sealed ? await api.ask("GET", found.room, "manifest", { access }) : null;
  /** @type {import("./compliance-api.js").LedgerLine[]} */
  const ledger = await api.ask("GET", found.room, "ledger", { access });
  const film = manifest && manifest.originals.length > 0 ? player(found, manifest, ledger, access) : null;

  const marks = h("div", { class: "recording-badges" }, badges(found));
  const historyBody = h("tbody", { role: "rowgroup" });
  const expired = h(
    "div",
    { class: "notice warning expired", role: "alert" },
    h("p", {}, t("access.expired")),
    h("button", { type: "button", class: "button small", onclick: () => page.reopen(found) }, t("access.again")),
  );
  const expiry = h("div", { class: "expiry" });
  const screen = film ? film.element : filmlessCard();
  const ofFiles = sealed ? [checking(), copies()] : [];
  const lasts = setTimeout(() => {
    film?.clock.pause();
    expiry.replaceChildren(expired);
  }, Math.max(0, Date.parse(access.expires) - Date.now()));

  const element = h(
    "div",
    { class: "stack" },
    h("div", { class: "actions" }, h("button", { type: "button", class: "button small", id: "back", onclick: page.back }, t("recording.back"))),
    h(
      "header",
      { class: "recording-head" },
      h("h1", { tabindex: -1, id: "screen-heading" }, t("recording.heading", { when: moment(found.start) })),
      h("p", {}, `${found.office} · ${found.counter} · ${found.reason}`),
      marks,
      h("p", { class: "hint" }, t("access.until", { time: time(access.expires) })),
    ),
    expiry,
    screen,
    h(
      "div",
      { class: "recording-columns" },
      facts(found, manifest),
      h("div", { class: "stack" }, ...ofFiles, custody()),
    ),
    history(),
  );
  await showHistory();
  return { element, close };

  function close() {
    closed = true;
    clearTimeout(lasts);
    film?.close();
  }

  function filmlessCard() {
    return h("section", { class: "card", id: "no-film" }, h("p", { class: "notice" }, t(`noFilm.${filmless(found)}`)));
  }

  /** Nothing is left to be played, checked or copied. */
  function emptied() {
    film?.close();
    screen.replaceWith(filmlessCard());
    for (const card of ofFiles) card.remove();
  }

  function checking() {
    const result = h("div", { id: "verify-result", role: "status" });
    const button = h("button", { type: "button", class: "button primary", id: "verify" }, t("verify.submit"));
    button.addEventListener("click", () =>
      work(button, result, () => api.ask("POST", found.room, "verify", { access }), (job) => {
        const { verified, fault, files, bytes } = job.result ?? {};
        if (verified === true) {
          const much = typeof files === "number" ? plural("verify.files", files, { size: size(Number(bytes ?? 0)) }) : "";
          return h("p", { class: "notice success", "data-verified": "true" }, h("strong", {}, t("verify.good")), " ", much);
        }
        return h("p", { class: "notice danger", "data-verified": "false" }, h("strong", {}, t("verify.bad")), " ", String(fault ?? ""));
      }),
    );
    return h("section", { class: "card", "aria-labelledby": "verify-heading" }, h("h2", { id: "verify-heading" }, t("verify.heading")), h("p", {}, t("verify.text")), h("div", { class: "actions" }, button), result);
  }

  function copies() {
    const link = (/** @type {string} */ id, /** @type {string} */ href, /** @type {string} */ text) =>
      h("li", {}, h("a", { class: "button small", id, href, download: "" }, text));
    const result = h("div", { id: "export-result", role: "status" });
    const exports = /** @type {const} */ (["mp4", "webm"]).map((format) => {
      const button = h("button", { type: "button", class: "button small", id: `export-${format}` }, t(`copies.${format}`));
      button.addEventListener("click", () =>
        work(button, result, () => api.ask("POST", found.room, "exports", { access, json: { format } }), (job) =>
          h(
            "p",
            { class: "notice success" },
            t("copies.ready", { size: size(Number(job.result?.bytes ?? 0)) }),
            " ",
            h("a", { id: "export-file", href: address(found.room, access, `exports/${job.id}/file`), download: "" }, t("copies.download")),
          ),
        ),
      );
      return button;
    });
    const encrypted = manifest?.encrypted ?? false;
    return h(
      "section",
      { class: "card", "aria-labelledby": "copies-heading" },
      h("h2", { id: "copies-heading" }, t("copies.heading")),
      h("p", {}, t("copies.text")),
      h(
        "ul",
        { class: "downloads" },
        link("download-package", address(found.room, access, "package.tar", { plain: "true" }), t("copies.plain", { size: size(found.bytes) })),
        encrypted ? link("download-stored", address(found.room, access, "package.tar"), t("copies.stored")) : null,
        link("download-manifest", address(found.room, access, "manifest"), t("copies.manifest")),
        link("download-signature", address(found.room, access, "manifest.jws"), t("copies.signature")),
      ),
      h("h3", {}, t("copies.exports")),
      h("p", { class: "hint" }, t("copies.exports.text")),
      h("div", { class: "actions" }, ...exports),
      result,
    );
  }

  function custody() {
    const body = h("div", { class: "stack tight" });
    const draw = () => {
      const { hold, retain_until: until, destroyed, destruction_note: note } = found;
      if (destroyed) {
        body.replaceChildren(
          h("p", { class: "notice" }, t("custody.destroyed", { when: moment(destroyed) })),
          note ? h("details", {}, h("summary", {}, t("custody.note")), h("p", { class: "hash" }, note)) : "",
        );
        return;
      }
      const holding = h("button", { type: "button", class: "button small", id: "hold" }, hold ? t("custody.lift") : t("custody.hold"));
      holding.addEventListener("click", () => void (hold ? lift() : place()));
      const keep = h("button", { type: "button", class: "button small", id: "retention" }, t("custody.retention"));
      keep.addEventListener("click", () => void retain());
      const destroy = h("button", { type: "button", class: "button small danger", id: "destroy" }, t("custody.destroy"));
      destroy.addEventListener("click", () => void ruin());
      body.replaceChildren(
        h(
          "dl",
          { class: "facts" },
          ...fact(t("custody.hold.is"), hold ? t("custody.hold.on", { reason: hold.reason, when: moment(hold.at) }) : t("custody.hold.off"), "custody-hold"),
          ...fact(t("custody.until"), until ? day(until) : t("custody.until.none"), "custody-until"),
        ),
        h("div", { class: "actions" }, holding, keep, destroy),
      );
    };
    draw();
    return h("section", { class: "card", "aria-labelledby": "custody-heading" }, h("h2", { id: "custody-heading", tabindex: -1 }, t("custody.heading")), body);

    async function place() {
      const why = await ask({ heading: t("custody.hold"), text: t("custody.hold.text"), yes: t("custody.hold") });
      if (why) await change(() => api.ask("PUT", found.room, "hold", { json: { reason: why.reason } }), t("custody.hold.done"), "hold");
    }

    async function lift() {
      // What lifting is done for is the reason of an access: so it is one of its own.
      const why = await ask({ heading: t("custody.lift"), text: t("custody.lift.text"), yes: t("custody.lift") });
      const lifting = async (/** @type {string} */ reason) =>
        api.ask("DELETE", found.room, "hold", { access: await api.open(found.room, reason) });
      if (why) await change(() => lifting(why.reason), t("custody.lift.done"), "hold");
    }

    async function retain() {
      const more = field("retention-date", t("custody.retention.date"), { type: "date", name: "until" }, t("custody.retention.hint"), true);
      if (found.retain_until) {
        const shown = new Intl.DateTimeFormat("sv-SE", { timeZone: "Europe/Rome" }).format(new Date(found.retain_until));
        /** @type {HTMLInputElement} */ (more.querySelector("input")).value = shown;
      }
      const why = await ask({ heading: t("custody.retention"), text: t("custody.retention.text"), yes: t("custody.retention.set"), more });
      if (!why) return;
      const until = why.until ? beginOfDay(why.until) : null;
      await change(() => api.ask("PUT", found.room, "retention", { json: { until, reason: why.reason } }), t("custody.retention.done"), "retention");
    }

    async function ruin() {
      const why = await ask({ heading: t("custody.destroy.heading"), text: t("custody.destroy.text"), yes: t("custody.destroy.yes"), confirm: t("custody.destroy.sure") });
      const ruining = async (/** @type {string} */ reason) => {
        await api.ask("POST", found.room, "destroy", { json: { reason } });
        // Every access ended with it: what remains is looked at under one of its own.
        access = await api.open(found.room, reason);
      };
      if (why) await change(() => ruining(why.reason), t("custody.destroy.done"), "custody-heading");
    }

    /** @param {() => Promise<unknown>} what @param {string} done @param {string} focus */
    async function change(what, done, focus) {
      try {
        await what();
        await redraw();
        page.clear();
        page.announce(done);
        document.getElementById(focus)?.focus();
        await showHistory();
      } catch (error) {
        page.fail(error);
        if (!(error instanceof Problem && error.slug === "destroyed")) return;
        // Somebody else, or its time, was quicker, and the access ended with it.
        expiry.replaceChildren(expired);
        await redraw().catch(page.fail);
      }
    }

    async function redraw() {
      const again = await api.search({ reason: t("custody.look"), room: found.room });
      found = again.recordings[0] ?? found;
      draw();
      marks.replaceChildren(badges(found));
      if (found.destroyed) emptied();
    }
  }

  function history() {
    const again = h("button", { type: "button", class: "button small", id: "history-again", onclick: () => void showHistory() }, t("history.again"));
    const heads = ["when", "what", "why", "who"].map((key) => h("th", { scope: "col", role: "columnheader" }, t(/** @type {import("./compliance-i18n.js").Key} */ (`history.${key}`))));
    return h(
      "section",
      { class: "card", "aria-labelledby": "history-heading" },
      h("div", { class: "found-head" }, h("h2", { id: "history-heading" }, t("history.heading")), again),
      h("p", { class: "hint" }, t("history.text")),
      h("div", { class: "table", role: "region", tabindex: 0, "aria-labelledby": "history-heading" }, h("table", { id: "history", role: "table" }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)), historyBody)),
    );
  }

  async function showHistory() {
    try {
      /** @type {import("./compliance-api.js").AuditLine[]} */
      const lines = await api.ask("GET", found.room, "accesses", { access });
      historyBody.replaceChildren(...together(lines).map(historyRow));
    } catch (error) {
      page.fail(error);
    }
  }

  /**
   * Shows how far a job is, and at last what came out.
   * @param {HTMLButtonElement} button
   * @param {HTMLElement} place
   * @param {() => Promise<import("./compliance-api.js").Job>} begin
   * @param {(job: import("./compliance-api.js").Job) => HTMLElement} done
   */
  async function work(button, place, begin, done) {
    button.disabled = true;
    try {
      let job = await begin();
      const words = h("span", {});
      const bar = h("progress", { max: 100, value: 0, "aria-label": t("job.progress") });
      place.replaceChildren(h("p", { class: "job" }, words, bar));
      while (!closed && (job.state === "queued" || job.state === "running")) {
        setText(words, job.state === "queued" ? t("job.queued") : t("job.running", { percent: percent(job.progress_percent) }));
        bar.value = job.progress_percent;
        await new Promise((resolve) => setTimeout(resolve, JOB_EVERY_MS));
        job = await api.job(job.id);
      }
      const failed = () => h("p", { class: "notice danger" }, h("strong", {}, t("job.failed")), " ", job.error ?? "");
      place.replaceChildren(job.state === "done" ? done(job) : failed());
    } catch (error) {
      const words = error instanceof Problem && error.status !== 401 ? problemWords(error) : null;
      place.replaceChildren(words ? h("p", { class: "notice danger" }, words) : "");
      if (words === null) page.fail(error);
    }
    button.disabled = false;
    if (!closed) await showHistory();
  }
}

/** Why there is nothing to play. @param {import("./compliance-api.js").Found} found */
function filmless(found) {
  if (found.state === "destroyed") return "destroyed";
  return found.revision > 0 ? "empty" : "notSealed";
}

/** @param {string} name @param {string | Node} value @param {string} [id] */
function fact(name, value, id) {
  return [h("div", {}, h("dt", {}, name), h("dd", { id: id ?? null }, value))];
}

/**
 * @param {import("./compliance-api.js").Found} found
 * @param {import("./compliance-api.js").Manifest | null} manifest
 */
function facts(found, manifest) {
  const names = new Map(found.participants.map(({ id, name }) => [id, name]));
  const length = found.begun && found.ended ? elapsed(Date.parse(found.ended) - Date.parse(found.begun)) : null;
  const people = manifest?.participants ?? [];
  const presence = manifest?.presence ?? [];
  return h(
    "section",
    { class: "card", id: "facts", "aria-labelledby": "facts-heading" },
    h("h2", { id: "facts-heading" }, t("facts.heading")),
    h(
      "dl",
      { class: "facts" },
      ...fact(t("facts.profile"), word("profile", found.profile)),
      ...fact(t("facts.reference"), found.reference ?? "–"),
      ...fact(t("facts.begun"), found.begun ? moment(found.begun) : "–"),
      ...fact(t("facts.ended"), found.ended ? moment(found.ended) : "–"),
      ...(length ? fact(t("facts.length"), length) : []),
      ...fact(t("facts.outcome"), found.outcome ? word("outcome", found.outcome) : t("facts.outcome.none")),
      ...(manifest ? fact(t("facts.endReason"), word("endReason", manifest.end_reason)) : []),
      ...(found.sealed ? fact(t("facts.sealed"), moment(found.sealed)) : []),
      ...(found.last_error && !found.sealed ? fact(t("facts.error"), found.last_error) : []),
    ),
    h("h3", {}, t("facts.people")),
    h(
      "ul",
      { class: "facts-people" },
      ...(people.length > 0 ? people.map((person) => personItem(person, names)) : found.participants.map(({ name, role }) => h("li", {}, h("strong", {}, name), " ", h("span", { class: "hint" }, roleName(role))))),
    ),
    manifest ? h("h3", {}, t("facts.presence")) : null,
    manifest
      ? h("ul", { class: "facts-list", id: "presence" }, ...(presence.length > 0 ? presence.map(({ from, to, length_ms: ms }) => h("li", {}, t("facts.presence.span", { from: time(from), to: time(to), length: elapsed(ms) }))) : [h("li", {}, t("facts.presence.none"))]))
      : null,
    manifest && manifest.recovery.length > 0 ? h("h3", {}, t("facts.recovery")) : null,
    manifest && manifest.recovery.length > 0 ? h("ul", { class: "facts-list" }, ...manifest.recovery.map(({ file, reason }) => h("li", {}, `${file ?? t("facts.recovery.room")}: ${word("recovery", reason)}`))) : null,
    h(
      "details",
      {},
      h("summary", {}, t("facts.technical")),
      h(
        "dl",
        { class: "facts" },
        ...fact(t("facts.room"), h("span", { class: "hash" }, found.room)),
        ...fact(t("facts.revision"), String(found.revision)),
        ...fact(t("facts.manifest"), h("span", { class: "hash" }, found.manifest_sha256 ?? "–")),
        ...(manifest ? fact(t("facts.key"), h("span", { class: "hash" }, manifest.key_id)) : []),
        ...(manifest ? fact(t("facts.software"), `${manifest.software.name} ${manifest.software.version} · ${manifest.node}`) : []),
        ...(manifest ? fact(t("facts.originals"), String(manifest.originals.length)) : []),
        ...(manifest ? fact(t("facts.encrypted"), manifest.encrypted ? t("facts.yes") : t("facts.no")) : []),
      ),
    ),
  );
}

/**
 * @param {import("./compliance-api.js").Manifest["participants"][number]} person
 * @param {Map<string, string>} names
 */
function personItem(person, names) {
  const said = [];
  if (person.admitted) said.push(t("facts.admitted", { time: time(person.admitted) }));
  else said.push(t("facts.neverCame"));
  if (person.consented) said.push(t("facts.consented", { time: time(person.consented), version: person.consent_text_version ?? "" }));
  if (person.voice) said.push(t("facts.spoke", { length: elapsed(person.voice.speech_ms) }));
  return h(
    "li",
    {},
    h("strong", {}, names.get(person.id) ?? roleName(person.role)),
    " ",
    h("span", { class: "hint" }, roleName(person.role)),
    h("br"),
    said.join(" · "),
  );
}

/**
 * A player reads a film in many parts: what one access did with one file, one after the other, is one row.
 * @param {import("./compliance-api.js").AuditLine[]} lines oldest first
 */
function together(lines) {
  /** @type {{first: import("./compliance-api.js").AuditLine, key: string, times: number}[]} */
  const rows = [];
  for (const line of lines) {
    const key = JSON.stringify([line.action, line.caller, line.reason, line.detail.file]);
    const same = rows.slice(-8).find((row) => row.key === key && ["original_read", "accesses_read"].includes(line.action));
    if (same) same.times += 1;
    else rows.push({ first: line, key, times: 1 });
  }
  return rows.reverse();
}

/** @param {{first: import("./compliance-api.js").AuditLine, times: number}} row */
function historyRow({ first, times }) {
  const { file, until } = first.detail;
  const more = [];
  if (typeof file === "string") more.push(file.split("/").pop());
  if (first.action === "retention_set") more.push(typeof until === "string" ? day(until) : t("custody.until.none"));
  if (times > 1) more.push(plural("history.times", times));
  const [kind = "", name = ""] = first.caller.split(":");
  const who = word("caller", kind) + (name ? ` ${name.slice(-8)}` : "");
  return h(
    "tr",
    { "data-action": first.action, role: "row" },
    h("td", { role: "cell" }, moment(first.at)),
    h("td", { role: "cell" }, word("action", first.action), more.length > 0 ? h("span", { class: "hint" }, ` ${more.join(", ")}`) : null),
    h("td", { role: "cell" }, first.reason),
    h("td", { role: "cell", title: first.caller }, who),
  );
}
