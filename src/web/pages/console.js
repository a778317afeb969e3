/**
 * The operator's console: the day's appointments, who waits since when and whether their devices work. Opening one takes
 * the operator's seat in its room. The key stays in this tab only.
 *
 * Names for tests (`body[data-step]`: sign-in, day): #key #sign-in #sign-out #day #office, [data-room] with data-phase
 * and in it [data-guest] (data-place) and [data-open].
 */

import { Problem, send } from "./api.js";
import { byId, h, icon, pressed, setText } from "./dom.js";
import { date as longDate, elapsed, hour, languageLinks, roleName, t, today, translateDocument, word } from "./i18n.js";
import { devicesWords } from "./operator.js";
import { wordsOf } from "./problems.js";

/** @typedef {import("./types.js").Appointment} Appointment */
/** @typedef {import("./types.js").Guest} Guest */

const KEY_STORE = "sportello.operator.key";
/** Someone who has just come in should be seen soon; more often would only load the server. */
const REFRESH_MS = 4_000;

/** Phases after which nobody meets any more. @type {import("./types.js").Phase[]} */
const OVER = ["concluded", "extended", "closed", "cancelled", "expired"];

let key = sessionStorage.getItem(KEY_STORE) ?? "";
/** @type {ReturnType<typeof setInterval> | undefined} */
let timer;

/** @param {unknown} error */
function complain(error) {
  if (!(error instanceof Problem)) {
    console.error(error);
    return;
  }
  if (error.status === 401 || error.status === 429) {
    signOut();
    return say(t(error.status === 401 ? "console.wrongKey" : "problem.too-many-requests"), error.slug);
  }
  say(error.status === 403 ? t("console.wrongKey") : wordsOf(error), error.slug);
}

/**
 * @param {string} text
 * @param {string} slug
 */
function say(text, slug) {
  const region = byId("problem");
  region.dataset.slug = slug;
  region.replaceChildren(h("p", {}, text));
}

function relieve() {
  delete byId("problem").dataset.slug;
  byId("problem").replaceChildren();
}

/** @param {string} step @param {HTMLElement} screen */
function show(step, screen) {
  clearInterval(timer);
  document.body.dataset.step = step;
  byId("screen").replaceChildren(screen);
  const heading = screen.querySelector("h1");
  document.title = [heading?.textContent, t("page.title")].filter(Boolean).join(" · ");
}

function signOut() {
  key = "";
  sessionStorage.removeItem(KEY_STORE);
  showSignIn();
}

function showSignIn() {
  const input = h("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "key-hint",
  });
  const submit = h("button", { id: "sign-in", class: "button primary", type: "submit" }, t("console.signIn"));
  const form = h(
    "form",
    { class: "card narrow", novalidate: true },
    h("h1", {}, t("console.heading")),
    h("p", { class: "lead" }, t("console.signIn.text")),
    h("label", { for: "key" }, t("console.key")),
    input,
    h("p", { id: "key-hint", class: "hint" }, t("console.key.hint")),
    submit,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = input.value.trim();
    // What is no token at all cannot even be sent as a header.
    if (!/^[\x21-\x7e]+$/.test(typed)) return say(t("console.wrongKey"), "no-key");
    void pressed(submit, async () => {
      key = typed;
      try {
        await appointments(today(), "");
        sessionStorage.setItem(KEY_STORE, key);
        relieve();
        showDay();
      } catch (error) {
        complain(error);
      }
    });
  });
  show("sign-in", form);
  input.focus();
}

/**
 * @param {string} date
 * @param {string} office
 * @returns {Promise<Appointment[]>}
 */
async function appointments(date, office) {
  const query = new URLSearchParams({ date });
  if (office) query.set("office", office);
  const answer = await (await send("GET", `/v1/appointments?${query}`, { token: key })).json();
  return answer.appointments;
}

function showDay() {
  const day = h("input", { id: "day", type: "date", value: today() });
  day.value = today();
  const office = h("input", { id: "office", type: "search", autocomplete: "off", placeholder: t("console.office.all") });
  const heading = h("p", { class: "lead", id: "day-words" });
  const summary = h("p", { id: "summary", class: "hint", role: "status" });
  const list = h("ul", { class: "appointments plain" });
  const none = h("p", { class: "card", hidden: true }, t("console.none"));
  const leave = h("button", { id: "sign-out", class: "button small", type: "button", onclick: signOut }, t("console.signOut"));
  /** @type {Map<string, AppointmentCard>} */
  let cards = new Map();
  let turn = 0;

  const load = async () => {
    turn += 1;
    const mine = turn;
    try {
      const found = await appointments(day.value || today(), office.value.trim());
      // Meanwhile another day was asked for.
      if (mine !== turn) return;
      const before = cards;
      cards = new Map(found.map((one) => [one.room, before.get(one.room) ?? new AppointmentCard(one.room)]));
      for (const [room, card] of before) if (!cards.has(room)) card.element.remove();
      found.forEach((one, at) => {
        const card = cards.get(one.room);
        card?.update(one);
        if (card && list.children[at] !== card.element) list.insertBefore(card.element, list.children[at] ?? null);
      });
      none.hidden = found.length > 0;
      const waiting = found.flatMap((one) => one.participants).filter((guest) => guest.place === "waiting").length;
      setText(heading, longDate(`${day.value || today()}T12:00:00Z`));
      setText(summary, t("console.summary", { n: found.length, waiting }));
      if (byId("problem").dataset.slug === "unreachable") relieve();
    } catch (error) {
      complain(error);
    }
  };
  day.addEventListener("change", () => void load());
  office.addEventListener("change", () => void load());

  show(
    "day",
    h(
      "section",
      { class: "day" },
      h(
        "div",
        { class: "card day-head" },
        h("div", { class: "day-title" }, h("h1", {}, t("console.heading")), leave),
        heading,
        h(
          "div",
          { class: "filters" },
          h("div", { class: "field" }, h("label", { for: "day" }, t("console.day")), day),
          h("div", { class: "field" }, h("label", { for: "office" }, t("console.office")), office),
        ),
        summary,
      ),
      none,
      list,
    ),
  );
  void load();
  let seconds = 0;
  timer = setInterval(() => {
    seconds += 1;
    for (const card of cards.values()) card.tick();
    if (seconds % (REFRESH_MS / 1000) === 0 && document.visibilityState === "visible") void load();
  }, 1_000);
}

class AppointmentCard {
  /** @param {string} room */
  constructor(room) {
    this.room = room;
    this.time = h("p", { class: "appointment-time" });
    this.phase = h("span", { class: "label" });
    this.title = h("h2", {});
    this.where = h("p", { class: "hint" });
    this.guests = h("ul", { class: "guests plain" });
    this.open = h("button", { type: "button", class: "button primary small", "data-open": room });
    this.open.addEventListener("click", () => pressed(this.open, () => this.#takeSeat()));
    this.element = h(
      "li",
      { class: "card appointment", "data-room": room },
      this.time,
      h("div", { class: "appointment-what" }, this.title, this.where, this.phase),
      this.guests,
      this.open,
    );
    /** @type {Appointment | null} */
    this.appointment = null;
    /** @type {Map<string, GuestLine>} */
    this.lines = new Map();
  }

  /** @param {Appointment} appointment */
  update(appointment) {
    this.appointment = appointment;
    const { phase, start, end } = appointment;
    this.element.dataset.phase = phase;
    setText(this.time, `${hour(start)} – ${hour(end)}`);
    setText(this.title, word(`profile.${appointment.profile}`, appointment.profile));
    setText(this.where, [appointment.office, appointment.counter, appointment.reason].join(" · "));
    const outcome = appointment.outcome && word(`outcome.${appointment.outcome}`, appointment.outcome);
    setText(this.phase, [word(`phase.${phase}`, phase), outcome].filter(Boolean).join(": "));
    this.phase.dataset.phase = phase;
    const over = OVER.includes(phase);
    for (const guest of appointment.participants) {
      let line = this.lines.get(guest.id);
      if (!line) {
        line = new GuestLine(guest);
        this.lines.set(guest.id, line);
        this.guests.append(line.element);
      }
      line.update(guest, over);
    }
    const waiting = appointment.participants.some((guest) => guest.place === "waiting" && guest.role !== "operator");
    this.element.dataset.waiting = String(waiting);
    this.open.hidden = over && phase !== "extended";
    const words = t(phase === "extended" ? "console.documents" : ["live", "suspended"].includes(phase) ? "console.return" : "console.open");
    if (this.open.textContent !== words) this.open.replaceChildren(words, icon("arrow"));
    this.open.setAttribute("aria-label", `${words}: ${hour(start)}, ${this.title.textContent}`);
  }

  tick() {
    for (const line of this.lines.values()) line.tick();
  }

  /** The room page continues with the session, as after a reload. */
  async #takeSeat() {
    try {
      const seat = await (await send("POST", `/v1/rooms/${this.room}/seat`, { token: key })).json();
      sessionStorage.setItem(`sportello.session.${this.room}`, seat.session_token);
      location.assign(`/operator/rooms/${this.room}${location.search}`);
    } catch (error) {
      complain(error);
    }
  }
}

class GuestLine {
  /** @param {Guest} guest */
  constructor(guest) {
    this.guest = guest;
    this.over = false;
    this.where = h("span", { class: "where" });
    this.element = h(
      "li",
      { "data-guest": guest.id, "data-role": guest.role },
      h("strong", {}, guest.name),
      h("span", { class: "hint" }, ` ${roleName(guest.role)}`),
      h("br"),
      this.where,
    );
  }

  /**
   * @param {Guest} guest
   * @param {boolean} over nobody is anywhere any more
   */
  update(guest, over) {
    this.guest = guest;
    this.over = over;
    this.element.dataset.place = guest.place;
    this.tick();
  }

  tick() {
    const { place, waiting_since: since, role } = this.guest;
    const words =
      place === "waiting" && role !== "operator"
        ? t("operator.place.waiting", { time: elapsed(since ? Date.now() - Date.parse(since) : 0) })
        : t(place === "waiting" ? "console.place.atDoor" : `operator.place.${place}`);
    const found = this.guest.devices;
    const devices = ["waiting", "inside"].includes(place) ? devicesWords(found) : "";
    const troubled = found !== null && !(found.camera && found.microphone);
    this.element.dataset.devices = devices === "" ? "unknown" : troubled ? "trouble" : "ok";
    setText(this.where, this.over ? "" : [words, devices].filter(Boolean).join(" · "));
  }
}

translateDocument();
byId("languages").setAttribute("aria-label", t("page.languages"));
byId("languages").append(...languageLinks());
if (key) showDay();
else showSignIn();
