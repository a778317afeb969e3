/**
 * The demo's front page: links and codes as they would come by notification and SMS, and a button for another room.
 * Names for tests: #book-delega, #book-videochiamata, #inbox, [data-message] with data-role, and in it a link and <code>.
 */

import { Problem, send } from "./api.js";
import { byId, h, setText } from "./dom.js";
import { hour, languageLinks, language, roleName, t, translateDocument } from "./i18n.js";

/**
 * @typedef {object} Message
 * @property {string} room
 * @property {import("./types.js").Role} role
 * @property {string} name
 * @property {string | null} phone
 * @property {string} join_url
 * @property {string} code
 * @property {string} text
 * @property {string} at
 */

async function showInbox() {
  try {
    /** @type {Message[]} */
    const messages = await (await send("GET", "/demo/inbox")).json();
    const rooms = groupByRoom(messages);
    byId("inbox").replaceChildren(
      ...(rooms.length > 0 ? rooms.map(bookingCard) : [h("p", { class: "card" }, t("demo.none"))]),
    );
    byId("problem").replaceChildren();
  } catch (error) {
    complain(error);
  }
}

/**
 * One list per room, the newest first.
 * @param {Message[]} messages
 * @returns {Message[][]}
 */
function groupByRoom(messages) {
  /** @type {Map<string, Message[]>} */
  const rooms = new Map();
  for (const message of messages) rooms.set(message.room, [...(rooms.get(message.room) ?? []), message]);
  return [...rooms.values()].reverse();
}

/**
 * @param {Message[]} messages
 * @param {number} index
 */
function bookingCard(messages, index) {
  const at = messages[0]?.at;
  const heading = index === 0 ? t("demo.newest") : t("demo.older", { hour: at ? hour(at) : "" });
  return h(
    "section",
    { class: index === 0 ? "card booking newest" : "card booking" },
    h("h3", {}, heading),
    h("ul", { class: "messages" }, ...messages.map(messageItem)),
  );
}

/** @param {Message} message */
function messageItem(message) {
  const address = new URL(message.join_url, location.href);
  address.searchParams.set("lang", language);
  const open = h(
    "a",
    { class: "button primary small", href: address.href, target: "_blank", rel: "noopener" },
    t("demo.openAs", { role: roleName(message.role) }),
  );
  open.append(h("span", { class: "only-read" }, ` (${t("demo.newTab")})`));
  return h(
    "li",
    { "data-message": true, "data-role": message.role },
    h("p", { class: "who" }, h("strong", {}, message.name), h("span", { class: "hint" }, ` ${roleName(message.role)}`)),
    h("p", { class: "demo-code" }, h("span", { class: "hint" }, t("demo.code"), " "), h("code", {}, message.code)),
    open,
    message.text
      ? h(
          "details",
          {},
          h("summary", {}, message.phone ? `${t("demo.sms")} · ${message.phone}` : t("demo.sms")),
          h("p", { class: "sms" }, message.text),
        )
      : null,
  );
}

/** @param {HTMLButtonElement} button */
async function book(button) {
  button.disabled = true;
  try {
    await send("POST", "/demo/rooms", { json: { profile: button.dataset.profile } });
    setText(byId("booked"), t("demo.booked"));
    await showInbox();
  } catch (error) {
    complain(error);
  }
  button.disabled = false;
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
for (const button of document.querySelectorAll("button[data-profile]")) {
  button.addEventListener("click", () => void book(/** @type {HTMLButtonElement} */ (button)));
}
void showInbox();
