/**
 * The player: every camera in step with one clock, each voice to be heard or muted, and the ledger's events as marks.
 * Names for tests: #player-play, #player-seek, #player-time, [data-lane] with a video, [data-mute], [data-event].
 */

import { Clock, Lane } from "./compliance-clock.js";
import { address } from "./compliance-api.js";
import { moment, t, time as hourOf, word } from "./compliance-i18n.js";
import { h, icon, setText } from "./dom.js";
import { elapsed, roleName } from "./i18n.js";

/** A jump by the buttons, seconds. */
const JUMP = 10;
const RATES = [0.5, 1, 1.5, 2];
/** A ledger's time and the recording's are of one clock if they agree so far, milliseconds. */
const SAME_CLOCK_MS = 5_000;

/** Events that are told but belong to before or after the film are not on its time line. */
/** @typedef {{at: number, line: import("./compliance-api.js").LedgerLine, who: string}} Mark */

/**
 * @param {import("./compliance-api.js").Found} found
 * @param {import("./compliance-api.js").Manifest} manifest
 * @param {import("./compliance-api.js").LedgerLine[]} ledger
 * @param {import("./compliance-api.js").Access} access
 */
export function player(found, manifest, ledger, access) {
  const names = new Map(found.participants.map(({ id, name }) => [id, name]));
  const lanes = lanesOf(manifest, names, (file) =>
    address(found.room, access, `originals/${encodeURIComponent(file)}`, { seekable: "true" }),
  );
  const duration = Math.max(0.1, ...lanes.flatMap(({ lane }) => lane.parts.map(({ to }) => to)));
  const clock = new Clock(lanes.map(({ lane }) => lane), duration);
  const begin = beginOf(manifest);
  const marks = marksOf(ledger, begin, names);

  const position = h("output", { id: "player-time", class: "clock" });
  const wall = h("span", { class: "hint", id: "player-wall" });
  const state = h("span", { class: "player-state", role: "status", id: "player-state" });
  const play = h("button", { type: "button", class: "button primary", id: "player-play", onclick: toggle });
  const seek = h("input", {
    type: "range",
    id: "player-seek",
    min: 0,
    max: duration.toFixed(2),
    step: 0.1,
    value: 0,
    "aria-label": t("player.position"),
  });
  seek.addEventListener("input", () => clock.seek(Number(seek.value)));
  // The step of the keys is a second and ten: a tenth, as of the pointer, leads nowhere.
  seek.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: JUMP, PageDown: -JUMP }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    clock.seek(clock.time + by);
    show();
  });
  const rate = h(
    "select",
    { id: "player-rate" },
    ...RATES.map((value) => h("option", { value, selected: value === 1 }, `${value.toLocaleString(document.documentElement.lang)}×`)),
  );
  rate.addEventListener("change", () => clock.setRate(Number(rate.value)));

  const ticks = marks
    .filter(({ at }) => at >= 0 && at <= duration)
    .map(({ at, line, who }) => {
      const tick = h("span", { class: "mark", title: `${elapsed(at * 1000)} ${eventWords(line, who)}` });
      tick.dataset.type = line.event.type;
      tick.style.left = `${((100 * at) / duration).toFixed(3)}%`;
      return tick;
    });
  const events = h("ol", { class: "events", id: "player-events" }, ...marks.map(eventItem));

  const stage = h("div", { class: "films", "data-count": Math.min(lanes.length, 4) }, ...lanes.map(({ tile }) => tile));
  const element = h(
    "section",
    { class: "card player", "aria-labelledby": "player-heading" },
    h("h2", { id: "player-heading" }, t("player.heading")),
    h("p", { class: "hint" }, t("player.text")),
    h(
      "div",
      { class: "player-body" },
      h(
        "div",
        { class: "player-films" },
        stage,
        h("div", { class: "line" }, seek, h("div", { class: "marks", "aria-hidden": "true" }, ...ticks)),
        h(
          "div",
          { class: "player-controls" },
          play,
          h("button", { type: "button", class: "button small", id: "player-back", onclick: () => jump(-JUMP) }, t("player.back", { n: JUMP })),
          h("button", { type: "button", class: "button small", id: "player-forward", onclick: () => jump(JUMP) }, t("player.forward", { n: JUMP })),
          h("label", { class: "rate" }, t("player.rate"), " ", rate),
          h("span", { class: "player-times" }, position, wall),
          state,
        ),
      ),
      h(
        "div",
        { class: "player-side" },
        h("h3", { id: "events-heading" }, t("player.events")),
        h("div", { class: "events-box", role: "region", tabindex: 0, "aria-labelledby": "events-heading" }, events),
      ),
    ),
  );

  clock.addEventListener("change", show);
  let frame = requestAnimationFrame(follow);
  show();
  return { element, clock, close };

  function follow() {
    show();
    frame = requestAnimationFrame(follow);
  }

  function close() {
    cancelAnimationFrame(frame);
    clock.close();
  }

  function toggle() {
    if (clock.wanted) clock.pause();
    else clock.play();
  }

  /** @param {number} by */
  function jump(by) {
    clock.seek(clock.time + by);
  }

  function show() {
    const { time } = clock;
    const text = elapsed(time * 1000);
    setText(position, `${text} / ${elapsed(duration * 1000)}`);
    setText(wall, t("player.wall", { time: hourOf(new Date(begin.wall + time * 1000).toISOString()) }));
    setText(play, clock.wanted ? t("player.pause") : t("player.play"));
    play.dataset.on = String(clock.wanted);
    if (document.activeElement !== seek || Math.abs(Number(seek.value) - time) > 0.2) seek.value = String(time);
    if (seek.getAttribute("aria-valuetext") !== text) seek.setAttribute("aria-valuetext", text);
    setText(state, clock.waiting && clock.wanted ? t("player.waiting") : "");
    for (const { lane, cover } of lanes) {
      const here = lane.at(time);
      const broken = lane.part && lane.broken.has(lane.part) && !here;
      cover.hidden = here !== null && lane.part === here;
      setText(cover, broken ? t("player.broken") : here ? t("player.opening") : t("player.absent"));
    }
    let current = null;
    for (const item of events.children) {
      if (Number(/** @type {HTMLElement} */ (item).dataset.at) <= time + 0.05) current = item;
    }
    for (const item of events.children) {
      const is = item === current && time > 0;
      if (is === item.hasAttribute("data-current")) continue;
      item.toggleAttribute("data-current", is);
      if (is) bringIntoView(/** @type {HTMLElement} */ (item));
    }
  }

  /** Moves the list alone, and not the page. @param {HTMLElement} item */
  function bringIntoView(item) {
    const box = item.parentElement?.parentElement;
    // Whoever walks through it by keys is not carried off.
    if (!box || box.contains(document.activeElement)) return;
    const [outer, inner] = [box.getBoundingClientRect(), item.getBoundingClientRect()];
    if (inner.top < outer.top || inner.bottom > outer.bottom) box.scrollTop += inner.top - outer.top - outer.height / 3;
  }

  /** @param {Mark} mark */
  function eventItem({ at, line, who }) {
    const place = Math.min(duration - 0.1, Math.max(0, at));
    const words = eventWords(line, who);
    const outside = at < 0 || at > duration;
    const when = outside ? hourOf(line.wall) : elapsed(at * 1000);
    const content = [h("span", { class: "event-time", title: moment(line.wall) }, when), h("span", {}, words)];
    const item = outside
      ? h("li", { class: "outside" }, ...content)
      : h("li", {}, h("button", { type: "button", "data-event": line.event.type, onclick: () => clock.seek(place) }, ...content));
    item.dataset.at = String(at);
    return item;
  }
}

/**
 * One lane for each person's camera, and one for each person's screen.
 * @param {import("./compliance-api.js").Manifest} manifest
 * @param {Map<string, string>} names
 * @param {(file: string) => string} url
 */
function lanesOf(manifest, names, url) {
  /** @type {Map<string, import("./compliance-api.js").Original[]>} */
  const groups = new Map();
  for (const original of manifest.originals) {
    const key = `${original.participant ?? original.role} ${original.sources.includes("screen") ? "screen" : "camera"}`;
    groups.set(key, [...(groups.get(key) ?? []), original]);
  }
  const order = manifest.participants.map(({ id }) => id);
  const sorted = [...groups.values()].sort((a, b) => order.indexOf(a[0]?.participant ?? "") - order.indexOf(b[0]?.participant ?? ""));
  return sorted.map((originals, index) => {
    const parts = originals
      .map(({ file, offset_ms: from, duration_ms: length }) => ({ url: url(file), from: from / 1000, to: (from + length) / 1000 }))
      .sort((a, b) => a.from - b.from);
    const [first] = originals;
    const name = names.get(first?.participant ?? "") ?? roleName(first?.role ?? "guest");
    const isScreen = first?.sources.includes("screen") ?? false;
    const hears = originals.some(({ sources }) => sources.includes("microphone"));
    const sees = originals.some(({ sources }) => sources.some((source) => source !== "microphone"));
    const title = isScreen ? t("player.screenOf", { name }) : name;
    const video = h("video", { playsinline: true, "aria-label": t("player.pictureOf", { name: title }), tabindex: -1 });
    const cover = h("p", { class: "film-cover" }, t("player.opening"));
    const tile = h(
      "figure",
      { class: "film", "data-lane": index, "data-role": first?.role ?? "" },
      h("div", { class: "film-picture" }, video, sees ? null : h("p", { class: "film-voice" }, t("player.voiceOnly")), cover),
      h(
        "figcaption",
        {},
        h("span", { class: "film-name" }, h("strong", {}, title), " ", h("span", { class: "hint" }, roleName(first?.role ?? "guest"))),
        hears ? muteButton(video, name) : null,
      ),
    );
    return { lane: new Lane(video, parts), tile, cover };
  });
}

/** @param {HTMLVideoElement} video @param {string} name */
function muteButton(video, name) {
  const label = h("span", {});
  const picture = h("span", { class: "mute-icon" });
  const button = h("button", { type: "button", class: "button small mute", "data-mute": true }, picture, label);
  const show = () => {
    const text = video.muted ? t("player.unmute") : t("player.mute");
    setText(label, text);
    picture.replaceChildren(icon(video.muted ? "microphoneOff" : "microphone"));
    button.setAttribute("aria-label", `${text}: ${name}`);
    button.dataset.muted = String(video.muted);
  };
  button.addEventListener("click", () => {
    video.muted = !video.muted;
    show();
  });
  show();
  return button;
}

/**
 * The time line's zero on both clocks: that of the session copy, or of the first original.
 * @param {import("./compliance-api.js").Manifest} manifest
 */
function beginOf({ session_copy: copy, originals, begin }) {
  const [first] = [...originals].sort((a, b) => a.offset_ms - b.offset_ms);
  const { utc, mono_ms: mono } = copy?.begin ?? first?.begin ?? begin;
  return { wall: Date.parse(utc), mono };
}

/**
 * @param {import("./compliance-api.js").LedgerLine[]} ledger
 * @param {{wall: number, mono: number}} begin
 * @param {Map<string, string>} names
 * @returns {Mark[]}
 */
function marksOf(ledger, begin, names) {
  return ledger.map((line) => {
    const ago = typeof line.event.ago_ms === "number" ? line.event.ago_ms : 0;
    const byWall = Date.parse(line.wall) - begin.wall;
    const byMono = line.mono_ms - begin.mono;
    // The monotonic clock starts anew with the node, and then says nothing about another run.
    const at = (Math.abs(byMono - byWall) < SAME_CLOCK_MS ? byMono : byWall) - ago;
    const who = typeof line.event.participant === "string" ? (names.get(line.event.participant) ?? "") : "";
    return { at: at / 1000, line, who };
  });
}

/** @param {import("./compliance-api.js").LedgerLine} line @param {string} who */
export function eventWords({ event }, who) {
  const what = word("event", event.type);
  const more = [];
  if (typeof event.source === "string") more.push(word("source", event.source));
  if (event.type === "concluded" && typeof event.outcome === "string") more.push(word("outcome", event.outcome));
  if (Array.isArray(event.missing)) more.push(...event.missing.map(roleName));
  const said = more.length > 0 ? `${what} (${more.join(", ")})` : what;
  return who ? `${said}: ${who}` : said;
}
