/** The screens before and after the room. */

import { enterCode, Problem, welcome } from "./api.js";
import { documentsPanel } from "./documents.js";
import { byId, confirmed, h, icon, setText } from "./dom.js";
import { date, dateAndHour, elapsed, hour, plural, roleName, t, word } from "./i18n.js";
import { tooEarly, wordsOf } from "./problems.js";

/** @typedef {import("./types.js").Screen} Screen */
/** @typedef {import("./types.js").SessionView} SessionView */
/** @typedef {import("./join.js").App} App */
/** @typedef {import("./api.js").Session} Session */

/** How often a page that is kept open asks whether it may be entered now. More often would only load the server. */
const ASK_EVERY_MS = 20_000;
/** No code opens these. @type {import("./types.js").Welcome["admission"][]} */
const HOPELESS = ["too_late", "cancelled", "removed", "over"];

/** @type {import("./types.js").Outcome[]} */
const SUCCESSES = ["granted", "served"];
/** Problems of what was typed. */
const CODE_TROUBLES = ["incomplete-code", "wrong-code", "code-locked"];

/** @returns {Screen} */
export function loadingScreen() {
  return { element: h("p", { class: "card loading", role: "status" }, t("page.loading")) };
}

/**
 * Who, when and where without names, and the code.
 * @param {App} app
 * @param {string} joinToken
 * @param {import("./types.js").Welcome} appointment
 * @returns {Screen}
 */
export function codeScreen(app, joinToken, appointment) {
  const n = appointment.code_digits;
  const input = h("input", {
    id: "code-input",
    name: "code",
    inputmode: "numeric",
    autocomplete: "one-time-code",
    "aria-describedby": "code-hint",
    required: true,
  });
  const submit = h("button", { id: "code-submit", class: "button primary", type: "submit" }, t("code.submit"));
  const state = h("p", { class: "notice", role: "status", hidden: true });
  const fields = h(
    "div",
    { class: "code-fields" },
    h("label", { for: "code-input" }, t("code.label")),
    h("p", { id: "code-hint", class: "hint" }, t("code.hint", { n })),
    input,
    submit,
  );
  const heading = h("h2", {}, t("code.heading"));
  const form = h("form", { class: "card code", novalidate: true }, heading, state, fields);
  const toHave = appointment.role === "operator" ? null : readiness(appointment.role, n);

  const tell = () => {
    const words = admissionWords(appointment);
    state.hidden = words === "";
    state.className = appointment.admission === "documents" ? "notice" : "notice warning";
    state.dataset.admission = appointment.admission;
    setText(state, words);
    fields.hidden = HOPELESS.includes(appointment.admission);
    heading.hidden = fields.hidden;
    // Nobody needs a camera to hand in a paper.
    if (toHave) toHave.hidden = fields.hidden || appointment.admission === "documents";
  };
  tell();
  let asking = false;
  const timer = setInterval(async () => {
    if (asking || !mayHaveChanged(appointment)) return;
    asking = true;
    try {
      appointment = await welcome(joinToken);
      tell();
    } catch (error) {
      // Asked again next time.
      if (!(error instanceof Problem)) throw error;
    } finally {
      asking = false;
    }
  }, ASK_EVERY_MS);

  input.addEventListener("input", () => {
    input.removeAttribute("aria-invalid");
    // Pasted codes come with spaces, dashes, or with the whole message around them.
    const digits = input.value.replace(/\D/g, "").slice(0, n);
    if (/[^\d]/.test(input.value) || input.value.length > n) input.value = codeIn(input.value, n) ?? digits;
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const code = input.value.trim();
    if (code.length < n) return refuse(t("code.incomplete", { n }), "incomplete-code");
    submit.disabled = true;
    try {
      const token = await enter(code);
      if (token) await app.admitted(token);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      refuse(wordsOf(error), error.slug);
    } finally {
      submit.disabled = false;
    }
  });

  /**
   * The session's token; `null` if the person stays on their other device.
   * @param {string} code
   */
  const enter = async (code) => {
    try {
      return await enterCode(joinToken, code);
    } catch (error) {
      if (!(error instanceof Problem) || error.slug !== "other-device") throw error;
      const here = await confirmed(t("code.otherDevice"), t("code.otherDevice.here"), t("code.otherDevice.stay"));
      return here ? enterCode(joinToken, code, true) : null;
    }
  };

  /**
   * @param {string} text
   * @param {string} slug
   */
  const refuse = (text, slug) => {
    app.say(text, slug);
    // The field is marked for what is wrong with the code, not for the hour or the phase of the room.
    if (CODE_TROUBLES.includes(slug)) input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", "code-hint problem");
    input.focus();
    input.select();
  };

  const element = h(
    "div",
    { class: "columns" },
    h(
      "section",
      { class: "card" },
      h("h1", {}, t("welcome.heading")),
      h("p", { class: "lead" }, word(`profile.${appointment.profile}`, "")),
      facts([
        [
          t("welcome.when"),
          [
            date(appointment.start),
            h("br"),
            t("welcome.hours", { from: hour(appointment.start), to: hour(appointment.end) }),
          ],
        ],
        [t("welcome.office"), [appointment.office]],
        [t("welcome.counter"), [appointment.counter]],
        [t("welcome.role"), [roleName(appointment.role)]],
      ]),
    ),
    form,
    toHave,
  );
  return { element, close: () => clearInterval(timer) };
}

/**
 * What a code would come to, if not simply to the meeting.
 * @param {import("./types.js").Welcome} appointment
 */
function admissionWords(appointment) {
  switch (appointment.admission) {
    case "too_early":
      return tooEarly(appointment.opens_at);
    case "open":
      return "";
    case "documents":
      return t("welcome.documents", { closes: dateAndHour(appointment.closes_at) });
    case "locked":
      return t("code.locked");
    case "too_late":
      return t("welcome.tooLate", { closes: dateAndHour(appointment.closes_at) });
    case "cancelled":
      return `${t("ended.cancelled.heading")}. ${t("ended.cancelled.text")}`;
    case "removed":
      return t("ended.removed.text");
    default:
      return t("welcome.over");
  }
}

/**
 * Whether a time has passed that the last answer spoke of.
 * @param {import("./types.js").Welcome} appointment
 */
function mayHaveChanged({ admission, opens_at: opens, closes_at: closes }) {
  if (admission === "too_early") return Date.now() >= Date.parse(opens);
  return ["open", "documents"].includes(admission) && Date.now() >= Date.parse(closes);
}

/**
 * The first run of so many digits in a pasted text, whole or written in groups, if there is one.
 * @param {string} text
 * @param {number} n
 */
function codeIn(text, n) {
  const run = new RegExp(`(?<!\\d)\\d{${n}}(?!\\d)`);
  const found = text.match(run) ?? text.replace(/(\d)[ \-.](?=\d)/g, "$1").match(run);
  return found ? found[0] : null;
}

/**
 * @param {import("./types.js").Role} role
 * @param {number} n digits of the code
 */
function readiness(role, n) {
  const forms = role === "delegato" || role === "delegante";
  return h(
    "section",
    { class: "card readiness" },
    h("h2", {}, t("welcome.ready")),
    h(
      "ul",
      {},
      h("li", {}, t("welcome.ready.code", { n })),
      h("li", {}, t("welcome.ready.document")),
      forms && h("li", {}, t("welcome.ready.forms")),
      forms && h("li", {}, t("welcome.ready.both")),
      h("li", {}, t("welcome.ready.device")),
      h("li", {}, t("welcome.ready.browser")),
      h("li", {}, t("welcome.ready.close")),
    ),
  );
}

/**
 * The recording notice in the version that the server asks for.
 * @param {App} app
 * @param {SessionView} view
 * @param {Session} session
 * @returns {Screen}
 */
export function consentScreen(app, view, session) {
  const version = view.consent_text_version;
  const texts = ["what", "why", "who", "refuse"].map((part) => word(`consent.${version}.${part}`, ""));
  if (texts.includes("")) return messageScreen(t("consent.heading"), t("consent.unknownVersion"));
  const accept = h("button", { id: "consent-accept", class: "button primary", type: "button" }, t("consent.accept"));
  accept.addEventListener("click", async () => {
    accept.disabled = true;
    await app.attempt(() => session.consent(version));
    accept.disabled = false;
  });
  const decline = h("button", { id: "consent-decline", class: "button", type: "button" }, t("consent.decline"));
  decline.addEventListener("click", () => {
    app.declined = true;
    app.follow();
  });
  const element = h(
    "section",
    { class: "card narrow" },
    h("h1", {}, t("consent.heading")),
    h("ul", { class: "notice-text" }, ...texts.map((text) => h("li", {}, text))),
    h("p", { class: "hint" }, t("consent.version", { version })),
    h("div", { class: "actions" }, accept, decline),
  );
  return { element };
}

/**
 * «Presto verrai accolto».
 * @param {App} app
 * @param {Session} session
 * @returns {Screen}
 */
export function waitingScreen(app, session) {
  const preview = h("video", {
    class: "mirrored",
    muted: true,
    autoplay: true,
    playsinline: true,
    "aria-label": t("devices.preview"),
  });
  const since = h("strong", { class: "clock" });
  const showPreview = () => {
    preview.muted = true;
    preview.srcObject = app.devices.camera && new MediaStream([app.devices.camera]);
  };
  const tick = () => {
    const me = session.view?.participants.find((person) => person.id === session.view?.me.id);
    if (me?.waiting_since) setText(since, elapsed(session.now - Date.parse(me.waiting_since)));
  };
  showPreview();
  tick();
  app.devices.addEventListener("change", showPreview);
  const timer = setInterval(tick, 1_000);
  const view = session.view;
  const leave = h(
    "button",
    { id: "leave", class: "button", type: "button", onclick: () => void app.leave() },
    t("room.leave.long"),
  );
  const element = h(
    "section",
    { id: "waiting", class: "card narrow" },
    h("h1", {}, t("waiting.heading")),
    h("p", { class: "lead" }, t("waiting.text")),
    h("div", { class: "picture" }, preview),
    h("p", {}, t("waiting.since"), " ", since),
    view &&
      h(
        "p",
        {},
        t("waiting.appointment", { hour: hour(view.room.start) }),
        ` · ${view.room.office} · ${view.room.counter}`,
      ),
    h("div", { class: "actions" }, leave),
  );
  return {
    element,
    close: () => {
      clearInterval(timer);
      app.devices.removeEventListener("change", showPreview);
    },
  };
}

/**
 * @param {string} heading
 * @param {string} text
 * @param {string} [action]
 * @param {() => void} [act]
 * @param {string} [id]
 * @returns {Screen}
 */
export function messageScreen(heading, text, action, act, id) {
  const button = action ? h("button", { id, class: "button primary", type: "button", onclick: act }, action) : null;
  return {
    element: h(
      "section",
      { class: "card narrow" },
      h("h1", {}, heading),
      h("p", { class: "lead" }, text),
      button && h("div", { class: "actions" }, button),
    ),
  };
}

/**
 * @param {App} app
 * @param {SessionView | null} view
 * @param {"concluded" | "removed" | "session" | "cancelled" | "expired"} reason
 * @returns {Screen}
 */
export function endedScreen(app, view, reason) {
  const screen =
    reason === "concluded"
      ? concludedScreen(app, view)
      : reason === "session"
        ? messageScreen(t("ended.session.heading"), t("ended.session.text"), t("ended.session.again"), () =>
            location.reload(),
          )
        : messageScreen(t(`ended.${reason}.heading`), t(`ended.${reason}.text`));
  screen.element.id = "ended";
  if (app.home) screen.element.append(h("p", {}, h("a", { class: "button", href: app.home }, t("console.back"))));
  screen.element.dataset.reason = reason;
  setText(byId("announce"), screen.element.querySelector("h1")?.textContent ?? "");
  return screen;
}

/**
 * «Chiamata terminata»; with an extension, the documents too.
 * @param {App} app
 * @param {SessionView | null} view
 * @returns {Screen}
 */
function concludedScreen(app, view) {
  const extended = h("div", { id: "extended", class: "notice", hidden: true });
  const outcome = view?.outcome ? facts([[t("ended.outcome"), [word(`outcome.${view.outcome}`, view.outcome)]]]) : null;
  const session = app.session;
  const documents = session ? documentsPanel(app, session) : null;
  const text = h("p", { class: "lead" });
  const card = h(
    "div",
    { class: "card" },
    // A tick would say that all went well.
    view?.outcome && SUCCESSES.includes(view.outcome) ? h("div", { class: "done" }, icon("check")) : null,
    h("h1", {}, t("ended.heading")),
    outcome,
    extended,
    text,
  );
  const element = h("section", { class: "ended" }, card, documents?.element);

  const update = (/** @type {SessionView | null} */ now) => {
    const until = now?.phase === "extended" ? now.extension_until : null;
    const hours = until && now ? Math.ceil((Date.parse(until) - Date.parse(now.now)) / 3_600_000) : 0;
    const open = until !== null && hours > 0;
    element.classList.toggle("columns", documents !== null && (open || (now?.documents ?? []).length > 0));
    extended.hidden = !open;
    if (until && open && extended.dataset.hours !== String(hours)) {
      extended.dataset.hours = String(hours);
      extended.replaceChildren(h("p", {}, h("strong", {}, plural("ended.extension", hours))));
      if (now?.me.role !== "operator")
        extended.append(h("p", {}, t("ended.extension.text", { until: dateAndHour(until) })));
    }
    if (until && open && now?.me.role === "operator") setText(text, t("ended.text.operator", { until: dateAndHour(until) }));
    else setText(text, t(open ? "ended.text.extended" : "ended.text"));
    if (!documents) return;
    documents.element.hidden = !element.classList.contains("columns");
    if (now) documents.update?.(now);
  };
  update(view);
  return { element, update };
}

/**
 * Names and values beside each other.
 * @param {[string, import("./dom.js").Child[]][]} rows
 */
export function facts(rows) {
  return h(
    "dl",
    { class: "facts" },
    ...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value))),
  );
}
