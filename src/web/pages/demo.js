/**
 * The demo's front page, in the place of the administration's portal: book, find the link in the notification centre and
 * the code among the text messages.
 *
 * Names for tests: #service #place #slot #delegante-name #delegante-code #book #booked; #notices and #inbox with
 * [data-notice] and [data-sms], each with data-room and data-role; #officer.
 */

import { Problem, send } from "./api.js";
import { byId, h, icon, pressed, setText } from "./dom.js";
import { dateAndHour, languageLinks, language, moment, roleName, t, today, translateDocument } from "./i18n.js";

/**
 * @typedef {object} Message
 * @property {string} room
 * @property {string} profile
 * @property {string} office
 * @property {string} counter
 * @property {string} start
 * @property {string} end
 * @property {import("./types.js").Role} role
 * @property {string} name
 * @property {string | null} phone
 * @property {string} join_url
 * @property {string} code
 * @property {string} text
 * @property {string} at
 */

/** @typedef {{office: string, counter: string, days: number[]}} Place days of the week, 1 is Monday */

const SOCIAL = "Indennità e ammortizzatori sociali";
/** The delegation's counter is open on Tuesday and Thursday, 9 to 12. @type {Place[]} */
const DELEGA = [{ office: "Roma", counter: "Deleghe", days: [2, 4] }];
/** Some lines of the calendar of the video counter, 20 minutes each. @type {Place[]} */
const VIDEO = [
  { office: "Roma", counter: SOCIAL, days: [1, 2, 3, 4, 5] },
  { office: "Direzione Provinciale Cremona", counter: SOCIAL, days: [4] },
  { office: "Agenzia territoriale di Crema", counter: "Conto assicurativo e pensioni", days: [3] },
  { office: "Direzione Provinciale Lodi", counter: SOCIAL, days: [2] },
  { office: "Direzione Provinciale Genova", counter: "Pensioni", days: [1] },
  { office: "Direzione Provinciale Cosenza", counter: SOCIAL, days: [5] },
];
const HOURS = [9, 10, 11];
const SLOTS_SHOWN = 12;

function bookingForm() {
  const service = h(
    "select",
    { id: "service" },
    h("option", { value: "delega" }, t("demo.service.delega")),
    h("option", { value: "videochiamata" }, t("demo.service.videochiamata")),
  );
  const place = h("select", { id: "place" });
  const slot = h("select", { id: "slot" });
  const name = h("input", { id: "delegante-name", value: "Anna Conti", autocomplete: "off", maxlength: 100, required: true });
  const code = h("input", { id: "delegante-code", value: "CNTNNA48M52F205X", autocomplete: "off", maxlength: 16, required: true });
  const delegante = h(
    "fieldset",
    { class: "delegante" },
    h("legend", {}, t("demo.delegante")),
    field(name, t("demo.name")),
    field(code, t("demo.fiscalCode")),
  );
  const submit = h("button", { id: "book", class: "button primary", type: "submit" }, t("demo.submit"));
  const booked = h("p", { id: "booked", role: "status", class: "notice success", hidden: true });
  const places = () => (service.value === "delega" ? DELEGA : VIDEO);
  const fillPlaces = () => {
    place.replaceChildren(
      ...places().map(({ office, counter }, at) => h("option", { value: at }, `${office} – ${counter}`)),
    );
    delegante.hidden = service.value !== "delega";
    delegante.disabled = delegante.hidden;
    fillSlots();
  };
  const fillSlots = () => {
    const days = places()[Number(place.value)]?.days ?? [];
    const minutes = service.value === "delega" ? 30 : 20;
    slot.replaceChildren(
      h("option", { value: "" }, t("demo.slot.now")),
      ...nextSlots(days, minutes).map((start) => h("option", { value: start }, dateAndHour(start))),
    );
  };
  service.addEventListener("change", fillPlaces);
  place.addEventListener("change", fillSlots);
  fillPlaces();

  const form = h(
    "form",
    { class: "booking-form" },
    field(service, t("demo.service")),
    field(place, t("demo.office")),
    field(slot, t("demo.slot")),
    delegante,
    h("p", { class: "hint" }, t("demo.mode")),
    submit,
    booked,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { office, counter } = places()[Number(place.value)] ?? {};
    const json = {
      profile: service.value,
      office,
      counter,
      start: slot.value || undefined,
      delegante: delegante.disabled
        ? undefined
        : { name: name.value.trim(), fiscal_code: code.value.trim().toUpperCase() },
    };
    void pressed(submit, async () => {
      try {
        /** @type {Message[]} */
        const messages = await (await send("POST", "/demo/rooms", { json })).json();
        byId("problem").replaceChildren();
        booked.hidden = false;
        setText(booked, t("demo.booked", { when: messages[0] ? dateAndHour(messages[0].start) : "" }));
        await showMessages();
      } catch (error) {
        complain(error);
      }
    });
  });
  return form;
}

/**
 * @param {HTMLInputElement | HTMLSelectElement} input
 * @param {string} label
 */
const field = (input, label) => h("div", { class: "field" }, h("label", { for: input.id }, label), input);

/**
 * The next beginnings on these days of the week, 9 to 12 at the counter.
 * @param {number[]} days
 * @param {number} minutes
 * @returns {string[]}
 */
function nextSlots(days, minutes) {
  const found = [];
  for (let ahead = 1; ahead < 15 && found.length < SLOTS_SHOWN; ahead += 1) {
    const noon = new Date(Date.parse(`${today()}T12:00:00Z`) + ahead * 86_400_000);
    if (!days.includes(noon.getUTCDay())) continue;
    // What the clock at the counter shows at this moment tells how far it is from UTC on that day.
    const shown = Number(noon.toLocaleTimeString("en-GB", { timeZone: "Europe/Rome", hour: "2-digit" }));
    for (const hour of HOURS) {
      for (let minute = 0; minute < 60; minute += minutes) {
        found.push(new Date(noon.getTime() + ((hour - shown) * 60 + minute) * 60_000).toISOString());
      }
    }
  }
  return found.slice(0, SLOTS_SHOWN);
}

async function showMessages() {
  try {
    /** @type {Message[]} */
    const messages = (await (await send("GET", "/demo/inbox")).json()).reverse();
    const people = messages.filter((message) => message.role !== "operator");
    const officers = messages.filter((message) => message.role === "operator");
    fill("notices", t("demo.notices"), people.map(notice), h("p", { class: "demo-tab" }, t("demo.deadlines")));
    fill("inbox", t("demo.inbox"), messages.map(sms));
    const board = h("a", { class: "button", href: `/operator?lang=${language}`, target: "_blank", rel: "noopener" });
    board.append(t("demo.console"), newTab());
    fill("officer", t("demo.officer"), officers.map(notice), h("p", {}, t("demo.officer.text")), h("p", {}, board));
  } catch (error) {
    complain(error);
  }
}

/**
 * @param {string} id
 * @param {string} heading
 * @param {HTMLElement[]} items
 * @param {...HTMLElement} above
 */
function fill(id, heading, items, ...above) {
  const list =
    items.length > 0 ? h("ul", { class: "messages plain" }, ...items) : h("p", { class: "hint" }, t("demo.none"));
  byId(id).replaceChildren(h("h2", {}, heading), ...above, list);
}

/** @param {Message} message */
function notice(message) {
  const address = new URL(message.join_url, location.href);
  address.searchParams.set("lang", language);
  const open = h("a", { class: "button primary small", href: address.href, target: "_blank", rel: "noopener" });
  open.append(t("demo.use"), icon("arrow"), newTab());
  open.setAttribute("aria-label", `${t("demo.use")}: ${message.name}, ${roleName(message.role)} (${t("demo.newTab")})`);
  return h(
    "li",
    { "data-notice": true, "data-room": message.room, "data-role": message.role },
    h("p", {}, h("strong", {}, message.name), h("span", { class: "hint" }, ` ${roleName(message.role)}`)),
    message.role === "operator"
      ? h("p", { class: "hint" }, `${message.office} · ${message.counter} · ${moment(message.start)}`)
      : h("p", {}, t("demo.notice", { when: dateAndHour(message.start) })),
    message.role === "operator" ? null : h("p", { class: "hint" }, `${message.office} · ${message.counter}`),
    open,
  );
}

const newTab = () => h("span", { class: "only-read" }, ` (${t("demo.newTab")})`);

/** @param {Message} message */
function sms(message) {
  return h(
    "li",
    { class: "sms", "data-sms": true, "data-room": message.room, "data-role": message.role },
    h("p", { class: "hint" }, icon("message"), `${message.phone ?? ""} · ${message.name} · ${moment(message.at)}`),
    h("p", { class: "sms-text" }, message.text),
    h("code", { class: "only-read" }, message.code),
  );
}

/** @param {unknown} error */
function complain(error) {
  if (!(error instanceof Problem)) throw error;
  const text = error.status === 0 ? t("problem.unreachable") : t("problem.other", { detail: error.message });
  byId("problem").replaceChildren(h("p", {}, text));
}

translateDocument();
document.title = t("demo.title");
byId("languages").setAttribute("aria-label", t("page.languages"));
byId("languages").append(...languageLinks());
byId("booking").append(h("h2", {}, t("demo.book")), bookingForm());
void showMessages();
