/** The room: who is there, whether it is recorded and why not, and one's own buttons. */

import { chatOpen, chatPanel } from "./chat.js";
import { documentsOpen, documentsPanel, receivedCount } from "./documents.js";
import { byId, h, icon, setText } from "./dom.js";
import { deviceBoard } from "./devicecheck.js";
import { facts } from "./entry.js";
import { dateAndHour, elapsed, listing, roleName, t, word } from "./i18n.js";
import { operatorPanel, whoWaits } from "./operator.js";
import { Stage } from "./stage.js";

/** @typedef {import("./types.js").Screen} Screen */
/** @typedef {import("./types.js").SessionView} SessionView */
/** @typedef {import("./join.js").App} App */
/** @typedef {import("./api.js").Session} Session */
/** @typedef {import("./media.js").Media} Media */

/** After so many tries it is more likely the network's rule than its mood; where media never got through, after one. */
const TRIES_UNTIL_BLOCKED = 2;

/**
 * @param {App} app
 * @param {SessionView} first
 * @param {Session} session
 * @param {Media} media
 * @returns {Screen}
 */
export function roomScreen(app, first, session, media) {
  const { devices } = app;
  const stage = new Stage(session, media, devices);
  const runs = first.me.role === "operator";
  const operator = runs ? operatorPanel(app, session) : null;
  const waits = runs ? whoWaits(app, session) : null;
  const clock = h(
    "span",
    { id: "elapsed", class: "clock", "aria-label": t("room.elapsed"), role: "timer" },
    elapsed(0),
  );
  const recording = h("p", { id: "recording", class: "recording" });
  const status = h("p", { class: "status", id: "status", role: "status" });
  const fault = h("p", { id: "recording-fault", class: "notice danger", role: "alert", hidden: true });
  const link = h("p", { id: "link", class: "notice warning", role: "status", hidden: true });
  const weak = h("p", { id: "weak", class: "notice warning with-icon", role: "status", hidden: true });
  weak.append(icon("signal"), h("span", {}));
  const sharing = h("p", { class: "notice", hidden: true }, t("room.ownScreen"));
  const sound = h("div", { class: "notice warning sound", hidden: true }, h("p", {}, t("room.sound.text")));
  const unblock = h("button", { id: "unblock-audio", class: "button primary", type: "button" }, t("room.sound"));
  sound.append(unblock);
  unblock.addEventListener("click", () => void stage.play());
  stage.addEventListener("sound", () => {
    sound.hidden = !stage.silenced;
  });

  const side = new Side(app, session, operator);
  const controls = new Controls(app, session, media, side);
  const info = h("button", { id: "info", class: "info", type: "button", "aria-haspopup": "dialog" }, icon("info"));
  info.append(
    h("span", {}, h("span", { class: "info-label" }, t("room.info"), ": "), h("strong", {}, first.room.counter)),
  );
  info.addEventListener("click", () => openDialog(t("room.info.heading"), sessionFacts(session.view ?? first)));

  let line = true;
  const showLink = () => {
    const words = linkWords(media, line, session.view);
    link.hidden = words === null;
    link.dataset.state = line ? media.state : "line";
    if (words) setText(link, words);
    sharing.hidden = media.screen === null;
    const { quality } = media;
    weak.hidden = words !== null || quality === "good";
    if (!weak.hidden && quality !== "good" && weak.lastElementChild)
      setText(weak.lastElementChild, t(`link.weak.${quality}`));
  };
  /** @param {Event} event */
  const onLine = (event) => {
    line = /** @type {CustomEvent<boolean>} */ (event).detail;
    showLink();
  };
  const tick = () => {
    const since = session.view?.first_live;
    setText(clock, elapsed(since ? session.now - Date.parse(since) : 0));
  };

  const element = h(
    "section",
    { id: "room", class: "room" },
    h("h1", { class: "only-read" }, t("page.title")),
    h(
      "div",
      { class: "bar" },
      h("div", { class: "bar-info" }, info, h("div", { class: "bar-state" }, clock, recording)),
      controls.element,
    ),
    h("div", { class: "banners" }, fault, link, weak, sound, sharing, waits?.element, status),
    h("div", { class: "room-body" }, stage.element, side.element),
  );
  side.addEventListener("change", () => {
    element.classList.toggle("with-panel", side.shown !== null);
    element.dataset.side = side.shown ?? "";
    // The operator's own panel tells it with more detail.
    waits?.element.classList.toggle("elsewhere", side.shown !== "operator");
  });
  side.show(null);

  /** @param {SessionView} view */
  const update = (view) => {
    element.dataset.flow = String(view.flow);
    recording.dataset.state = view.recording.state;
    setText(recording, t(`recording.${view.recording.state}`));
    showFault(fault, view);
    const words = statusWords(view);
    setText(status, words);
    const quiet = view.flow && view.missing.length === 0 && words === t("status.live");
    status.className = quiet ? "only-read" : "status";
    status.dataset.tone = view.suspended || view.flow ? "warning" : "calm";
    status.hidden = !fault.hidden;
    stage.update(view);
    side.update(view);
    waits?.update?.(view);
    controls.update(view);
    showLink();
    tick();
  };
  const timer = setInterval(tick, 500);
  media.addEventListener("state", showLink);
  session.addEventListener("line", onLine);
  return {
    element,
    update,
    close: () => {
      clearInterval(timer);
      media.removeEventListener("state", showLink);
      session.removeEventListener("line", onLine);
      stage.close();
      controls.close();
      operator?.close?.();
      closeDialog();
    },
  };
}

/** @typedef {"operator" | "documents" | "chat"} SideName */

/** What stands beside the people: one of the documents, the chat and, for the operator, their panel. Events: `change`. */
class Side extends EventTarget {
  /**
   * @param {App} app
   * @param {Session} session
   * @param {Screen | null} operator
   */
  constructor(app, session, operator) {
    super();
    this.operator = operator;
    const dismiss = () => this.show(null);
    /** @type {Record<"documents" | "chat", Screen>} */
    this.panels = { documents: documentsPanel(app, session, dismiss), chat: chatPanel(app, session, dismiss) };
    /** @type {SideName | null} */
    this.shown = null;
    /** What has come since the panel was last looked at. */
    this.news = { documents: 0, chat: 0 };
    /** @type {{documents: number, chat: number} | null} */
    this.known = null;
    this.element = h("div", { class: "side" }, operator?.element, this.panels.documents.element, this.panels.chat.element);
  }

  /** @param {"documents" | "chat" | null} name `null`: the operator's panel, or nothing */
  show(name) {
    const before = this.shown;
    this.shown = name ?? (this.operator ? "operator" : null);
    if (this.operator) this.operator.element.hidden = this.shown !== "operator";
    this.panels.documents.element.hidden = this.shown !== "documents";
    this.panels.chat.element.hidden = this.shown !== "chat";
    if (name) {
      this.news[name] = 0;
      const panel = this.panels[name].element;
      const first = name === "chat" ? panel.querySelector("textarea") : panel.querySelector("h2");
      if (first instanceof HTMLElement) first.focus();
    } else if (before === "documents" || before === "chat") {
      document.getElementById(`toggle-${before}`)?.focus();
    }
    this.dispatchEvent(new Event("change"));
  }

  /** @param {"documents" | "chat"} name */
  toggle(name) {
    this.show(this.shown === name ? null : name);
  }

  /** @param {"documents" | "chat"} name @param {SessionView} view */
  offers(name, view) {
    if (name === "chat") return chatOpen(view) || (view.chat_messages ?? 0) > 0;
    return documentsOpen(view) || (view.documents ?? []).length > 0;
  }

  /** @param {SessionView} view */
  update(view) {
    this.operator?.update?.(view);
    const counts = { documents: receivedCount(view), chat: view.chat_messages ?? 0 };
    for (const name of /** @type {("documents" | "chat")[]} */ (["documents", "chat"])) {
      this.panels[name].update?.(view);
      if (this.shown === name && !this.offers(name, view)) this.show(null);
      const more = counts[name] - (this.known?.[name] ?? counts[name]);
      if (more <= 0 || this.shown === name) continue;
      this.news[name] += more;
      setText(byId("announce"), t(`news.${name}`));
    }
    this.known = counts;
  }
}

/** Documents, chat, microphone, camera, screen, devices, leave. */
class Controls {
  /**
   * @param {App} app
   * @param {Session} session
   * @param {Media} media
   * @param {Side} side
   */
  constructor(app, session, media, side) {
    this.app = app;
    this.side = side;
    this.documents = control("toggle-documents", () => side.toggle("documents"));
    this.chat = control("toggle-chat", () => side.toggle("chat"));
    this.session = session;
    this.media = media;
    this.microphone = control("toggle-microphone", () => app.devices.switchMicrophone(!app.devices.microphoneOn));
    this.camera = control("toggle-camera", () => app.devices.switchCamera(!app.devices.cameraOn));
    this.share = control("share", () => void this.#share());
    const settings = control("settings", () => openSettings(app));
    const leave = control("leave", () => void app.leave());
    dress(settings, "settings", t("room.settings"));
    dress(leave, "leave", t("room.leave"));
    leave.classList.add("danger");
    leave.setAttribute("aria-label", `${t("room.leave")}: ${t("room.leave.long")}`);
    this.element = h(
      "div",
      { class: "controls", role: "group", "aria-label": t("room.controls") },
      this.documents,
      this.chat,
      this.share,
      this.microphone,
      this.camera,
      settings,
      leave,
    );
    this.show = () => this.#show();
    app.devices.addEventListener("change", this.show);
    media.addEventListener("state", this.show);
    side.addEventListener("change", this.show);
    this.#show();
  }

  /** @param {SessionView} view */
  update(view) {
    this.documents.hidden = !this.side.offers("documents", view);
    this.chat.hidden = !this.side.offers("chat", view);
    const allowed = view.features.includes("sharing") && "getDisplayMedia" in (navigator.mediaDevices ?? {});
    this.share.hidden = !allowed;
    if (!allowed) this.media.stopSharing();
    this.#show();
  }

  close() {
    this.app.devices.removeEventListener("change", this.show);
    this.media.removeEventListener("state", this.show);
  }

  async #share() {
    if (this.media.screen) return this.media.stopSharing();
    try {
      await this.media.shareScreen();
    } catch {
      this.app.say(t("problem.share"), "share");
    }
  }

  #show() {
    const { microphoneOn, cameraOn } = this.app.devices;
    toggle(
      this.microphone,
      microphoneOn,
      microphoneOn ? "microphone" : "microphoneOff",
      t(microphoneOn ? "room.microphone.on" : "room.microphone.off"),
    );
    toggle(
      this.camera,
      cameraOn,
      cameraOn ? "camera" : "cameraOff",
      t(cameraOn ? "room.camera.on" : "room.camera.off"),
    );
    const sharing = this.media.screen !== null;
    dress(this.share, "screen", t(sharing ? "room.share.stop" : "room.share"));
    this.share.dataset.on = String(sharing);
    this.share.disabled = this.media.state !== "connected";
    this.#showPanel(this.documents, "documents");
    this.#showPanel(this.chat, "chat");
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {"documents" | "chat"} name
   */
  #showPanel(button, name) {
    const news = this.side.news[name];
    const open = this.side.shown === name;
    if (button.dataset.news !== String(news)) {
      button.dataset.news = String(news);
      button.replaceChildren(
        icon(name),
        h("span", {}, t(`room.${name}`)),
        ...(news > 0 ? [newsBadge(news)] : []),
      );
    }
    button.dataset.on = String(open);
    button.setAttribute("aria-expanded", String(open));
    button.setAttribute("aria-controls", `${name}-panel`);
  }
}

/** @param {number} n */
function newsBadge(n) {
  return h("span", { class: "badge" }, String(n), h("span", { class: "only-read" }, ` ${t("news.unread")}`));
}

/**
 * @param {string} id
 * @param {() => void} act
 */
function control(id, act) {
  return h("button", { id, class: "control", type: "button", onclick: act });
}

/**
 * @param {HTMLButtonElement} button
 * @param {string} symbol
 * @param {string} label
 */
function dress(button, symbol, label) {
  if (button.textContent !== label) button.replaceChildren(icon(symbol), h("span", {}, label));
}

/**
 * @param {HTMLButtonElement} button
 * @param {boolean} on
 * @param {string} symbol
 * @param {string} label
 */
function toggle(button, on, symbol, label) {
  button.dataset.off = String(!on);
  dress(button, symbol, label);
}

/**
 * Nothing is transmitted that is not recorded: whoever is there must be able to read why.
 * @param {HTMLElement} element
 * @param {SessionView} view
 */
function showFault(element, view) {
  const suspended = view.suspended?.why === "recording" ? view.suspended.reason : null;
  const fault = view.recording.state === "lost" ? (view.recording.fault ?? suspended ?? "other") : suspended;
  element.hidden = fault === null;
  if (fault === null) {
    delete element.dataset.fault;
    setText(element, "");
    return;
  }
  element.dataset.fault = fault;
  const why = word(`fault.${fault}`, t("fault.other"));
  setText(element, t(view.me.role === "operator" ? "recording.fault.operator" : "recording.fault", { why }));
}

/** Where the meeting stands and who is missing. @param {SessionView} view */
function statusWords(view) {
  const missing = view.suspended?.why === "absence" ? view.suspended.missing : view.missing;
  const who = listing(missing.map(roleName));
  const own = view.participants.find((person) => person.id === view.me.id);
  if (own && own.not_recorded.length > 0) return t("recording.noPicture.own");
  if (view.flow) return missing.length > 0 ? t("status.grace", { who }) : t("status.live");
  if (!view.opened) return t("status.closedRoom");
  if (view.suspended?.why === "absence") return t("status.suspended", { who });
  if (missing.length === 1 && missing[0] === view.me.role) return t("status.missingMe");
  return missing.length > 0 ? t("status.missing", { who }) : t("status.starting");
}

/**
 * @param {Media} media
 * @param {boolean} line whether the session's events arrive
 * @param {SessionView | null} view
 * @returns {string | null}
 */
function linkWords(media, line, view) {
  // The server answers, and yet nothing gets through.
  if (media.tries >= (media.everConnected ? TRIES_UNTIL_BLOCKED : 1) && media.state !== "connected" && media.problem === null)
    return t("link.blocked");
  if (media.state === "broken" || (media.tries > 0 && media.state === "connecting")) return t("link.broken");
  if (!line) return t("link.line");
  return media.state === "connecting" && view?.place === "inside" ? t("link.connecting") : null;
}

/** «Informazioni sulla sessione telematica». @param {SessionView} view */
function sessionFacts(view) {
  const { room } = view;
  const people = view.participants.map((person) =>
    h(
      "li",
      {},
      person.name,
      h("span", { class: "hint" }, ` · ${[roleName(person.role), person.fiscal_code].filter(Boolean).join(" · ")}`),
    ),
  );
  /** @type {[string, import("./dom.js").Child[]][]} */
  const rows = [
    [t("room.info.counter"), [room.counter]],
    [t("room.info.reason"), [room.reason]],
    [t("room.info.start"), [dateAndHour(room.start)]],
    [t("room.info.end"), [dateAndHour(room.end)]],
    [t("room.info.office"), [room.office]],
    [t("room.info.people"), [h("ul", { class: "plain" }, ...people)]],
  ];
  if (room.operator_number) rows.push([t("room.info.operator"), [room.operator_number]]);
  return facts(rows);
}

/** @param {App} app */
function openSettings(app) {
  const board = deviceBoard(app.devices);
  openDialog(t("room.settings"), board.element).addEventListener("close", () => board.close?.());
}

/**
 * @param {string} heading
 * @param {HTMLElement} content
 * @returns {HTMLDialogElement}
 */
function openDialog(heading, content) {
  closeDialog();
  const close = h("button", { class: "button primary", type: "button" }, t("room.close"));
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-heading" },
    h("h2", { id: "dialog-heading" }, heading),
    content,
    h("div", { class: "actions" }, close),
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  byId("main").append(dialog);
  dialog.showModal();
  return dialog;
}

function closeDialog() {
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
}
