/**
 * The chat: messages as the server numbers them, and a field to write in.
 * Names for tests: #chat-panel, #chat-log, [data-message] (its number), #chat-text, #chat-send.
 */

import { Problem } from "./api.js";
import { panelHead } from "./documents.js";
import { h, icon } from "./dom.js";
import { hour, roleName, t } from "./i18n.js";
import { wordsOf } from "./problems.js";

/** @typedef {import("./types.js").SessionView} SessionView */
/** @typedef {import("./types.js").ChatMessage} ChatMessage */

const LONGEST_MESSAGE = 2000;

/** Whether the person may write now. @param {SessionView} view */
export const chatOpen = (view) => view.features.includes("chat") && view.place === "inside";

/**
 * @param {import("./join.js").App} app
 * @param {import("./api.js").Session} session
 * @param {() => void} dismiss
 */
export function chatPanel(app, session, dismiss) {
  let newest = 0;
  let asked = 0;
  let asking = false;
  const log = h("ol", { class: "chat-log plain" });
  const region = h("div", { id: "chat-log", class: "chat-region", role: "log", "aria-label": t("chat.log"), tabindex: 0 }, log);
  const empty = h("p", { class: "hint" }, t("chat.none"));
  const text = h("textarea", { id: "chat-text", rows: 2, maxlength: LONGEST_MESSAGE, "aria-describedby": "chat-hint" });
  const send = h("button", { id: "chat-send", class: "button primary small", type: "submit" }, t("chat.send"), icon("arrow"));
  const form = h(
    "form",
    { class: "chat-form" },
    h("label", { for: "chat-text" }, t("chat.label")),
    text,
    h("p", { id: "chat-hint", class: "hint" }, t("chat.hint")),
    send,
  );

  /** @param {ChatMessage[]} messages */
  const add = (messages) => {
    const atEnd = region.scrollHeight - region.scrollTop - region.clientHeight < 40;
    for (const message of messages) {
      if (message.number <= newest) continue;
      newest = message.number;
      log.append(messageItem(message, session.view?.me.id));
    }
    empty.hidden = newest > 0;
    if (atEnd) region.scrollTop = region.scrollHeight;
  };

  /** Fetches what is not here yet; what comes meanwhile is fetched after it. */
  const fetchNew = async () => {
    if (asking) return;
    asking = true;
    try {
      while (asked > newest) {
        const messages = await session.chatAfter(newest);
        if (messages.length === 0) break;
        add(messages);
      }
    } catch (error) {
      // The next view asks again.
      if (!(error instanceof Problem)) throw error;
    } finally {
      asking = false;
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const words = text.value.trim();
    if (words === "") return text.focus();
    send.disabled = true;
    try {
      await session.sendChat(words);
      text.value = "";
      app.relieve();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      app.say(wordsOf(error), error.slug);
    }
    send.disabled = false;
    text.focus();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });

  const element = h(
    "aside",
    { id: "chat-panel", class: "panel chat", "aria-labelledby": "chat-heading" },
    panelHead("chat-heading", t("chat.heading"), dismiss),
    empty,
    region,
    form,
  );
  return {
    element,
    /** @param {SessionView} view */
    update(view) {
      form.hidden = !chatOpen(view);
      asked = view.chat_messages ?? 0;
      if (asked > newest) void fetchNew();
    },
  };
}

/**
 * @param {ChatMessage} message
 * @param {string | undefined} me
 */
function messageItem(message, me) {
  const own = message.participant === me;
  return h(
    "li",
    { "data-message": message.number, class: own ? "own" : null },
    h(
      "p",
      { class: "message-by" },
      h("strong", {}, own ? t("chat.you") : message.name),
      h("span", { class: "hint" }, ` ${[!own && message.role && roleName(message.role), hour(message.at)].filter(Boolean).join(" · ")}`),
    ),
    h("p", { class: "message-text" }, message.text),
  );
}
