/**
 * Documents: choose or drop files, confirm that they conform to the original, send; and what was sent, received and
 * registered. The server judges a file by its content; what is said here before sending only saves the way.
 *
 * Names for tests: #documents-panel, #choose-files, #conforms, #send-files, [data-file] in the queue (data-state),
 * #tab-sent #tab-received #tab-registered, [data-document] with data-state and in it .label, [data-download]
 * [data-delete] [data-receipt] [data-register] and the form #register-<id>.
 */

import { Problem } from "./api.js";
import { byId, confirmed, h, icon, pressed, setText } from "./dom.js";
import { fileSize, moment, t } from "./i18n.js";
import { wordsOf } from "./problems.js";

/** @typedef {import("./types.js").SessionView} SessionView */
/** @typedef {import("./types.js").DocumentView} DocumentView */
/** @typedef {import("./join.js").App} App */
/** @typedef {import("./api.js").Session} Session */
/** @typedef {"sent" | "received" | "registered"} Tab */

/** The server's limits: told before a long upload is refused. */
const MAX_BYTES = 3 * 1024 * 1024;
const MAX_FILES = 50;
const ENDINGS = [".pdf", ".p7m", ".jpg", ".jpeg", ".png"];
const TYPES = ["application/pdf", "application/pkcs7-mime", "image/jpeg", "image/png"];
/** @type {Tab[]} */
const TABS = ["sent", "received", "registered"];

/** Whether documents may be handed in now. @param {SessionView} view */
export function documentsOpen(view) {
  if (view.phase === "extended") return true;
  const meeting = ["waiting", "live", "suspended"].includes(view.phase) && view.place === "inside";
  return meeting && (view.features.includes("documents") || view.me.role === "operator");
}

/** How many have come from others: a new one is told even while the panel is closed. @param {SessionView} view */
export function receivedCount(view) {
  return (view.documents ?? []).filter((document) => document.by !== view.me.id && document.state !== "deleted").length;
}

/**
 * @param {App} app
 * @param {Session} session
 * @param {() => void} [dismiss] closes the panel; without it the panel always stands
 * @returns {import("./types.js").Screen}
 */
export function documentsPanel(app, session, dismiss) {
  const upload = new Upload(session);
  const lists = Object.fromEntries(TABS.map((tab) => [tab, new DocumentList(app, session, tab)]));
  const tabs = tabRow(lists);
  upload.addEventListener("sent", () => tabs.choose("sent"));
  // What comes in is the operator's work.
  if (session.view?.me.role === "operator") tabs.choose("received");
  const element = h(
    "aside",
    { id: "documents-panel", class: "panel", "aria-labelledby": "documents-heading" },
    panelHead("documents-heading", t("documents.heading"), dismiss),
    upload.element,
    tabs.element,
  );
  return {
    element,
    update(view) {
      upload.update(view);
      for (const tab of TABS) {
        lists[tab]?.update(view);
        tabs.count(tab, lists[tab]?.size ?? 0);
      }
    },
  };
}

/**
 * @param {string} id
 * @param {string} text
 * @param {() => void} [dismiss]
 */
export function panelHead(id, text, dismiss) {
  const close =
    dismiss &&
    h(
      "button",
      { type: "button", class: "panel-close", "aria-label": `${t("room.close")}: ${text}`, onclick: dismiss },
      icon("cross"),
    );
  return h("div", { class: "panel-head" }, h("h2", { id, tabindex: -1 }, text), close);
}

/** The files that are chosen and on their way. Events: `sent`. */
class Upload extends EventTarget {
  /** @param {Session} session */
  constructor(session) {
    super();
    this.session = session;
    /** @type {QueuedFile[]} */
    this.files = [];
    this.sending = false;
    this.input = h("input", {
      id: "choose-files",
      class: "only-read",
      type: "file",
      multiple: true,
      accept: [...ENDINGS, ...TYPES].join(","),
      "aria-describedby": "files-hint",
    });
    this.queue = h("ul", { class: "queue plain", "aria-label": t("documents.chosen") });
    this.conforms = h("input", { id: "conforms", type: "checkbox", "aria-describedby": "conforms-hint" });
    this.send = h("button", { id: "send-files", class: "button primary", type: "submit", disabled: true });
    this.send.append(t("documents.send"), icon("arrow"));
    this.note = h("p", { id: "conforms-hint", class: "hint" });
    this.element = h(
      "form",
      { class: "upload" },
      h("h3", {}, t("documents.attach")),
      h("p", { id: "files-hint", class: "hint" }, t("documents.kinds")),
      h(
        "div",
        { class: "drop" },
        this.input,
        h("label", { class: "button small", for: "choose-files" }, t("documents.choose")),
        h("p", { class: "hint drop-words" }, t("documents.drop")),
      ),
      this.queue,
      h("div", { class: "check" }, this.conforms, h("label", { for: "conforms" }, t("documents.conforms"))),
      this.send,
      this.note,
    );
    this.input.addEventListener("change", () => {
      this.#add(this.input.files);
      // The same file may be chosen again after it was taken out.
      this.input.value = "";
    });
    this.conforms.addEventListener("change", () => this.#show());
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#sendAll();
    });
    this.#acceptDrops();
    this.#show();
  }

  /** @param {SessionView} view */
  update(view) {
    this.element.hidden = !documentsOpen(view);
  }

  #acceptDrops() {
    const zone = this.element;
    missedDropsStay();
    for (const name of ["dragenter", "dragover"]) {
      zone.addEventListener(name, (event) => {
        event.preventDefault();
        zone.dataset.over = "true";
      });
    }
    zone.addEventListener("dragleave", (event) => {
      if (!(event.relatedTarget instanceof Node && zone.contains(event.relatedTarget))) delete zone.dataset.over;
    });
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      delete zone.dataset.over;
      this.#add(event.dataTransfer?.files ?? null);
    });
  }

  /** @param {FileList | null} files */
  #add(files) {
    for (const file of [...(files ?? [])].slice(0, MAX_FILES - this.files.length)) {
      const queued = new QueuedFile(file, () => this.#takeOut(queued));
      this.files.push(queued);
      this.queue.append(queued.element);
    }
    this.#show();
  }

  /** @param {QueuedFile} file */
  #takeOut(file) {
    this.files = this.files.filter((other) => other !== file);
    file.element.remove();
    this.#show();
    this.input.focus();
  }

  async #sendAll() {
    const fit = this.files.filter((file) => file.fit);
    if (this.sending || fit.length === 0 || !this.conforms.checked) return;
    this.sending = true;
    const focused = this.element.contains(document.activeElement);
    this.#show();
    /** @type {QueuedFile[]} */
    const sent = [];
    for (const file of fit) {
      if (await file.send(this.session)) sent.push(file);
    }
    this.sending = false;
    for (const file of sent) file.element.remove();
    this.files = this.files.filter((file) => !sent.includes(file));
    // Said anew for every hand-in.
    if (this.files.length === 0) this.conforms.checked = false;
    this.#show();
    // The button that had the focus rests now.
    if (focused) this.input.focus();
    if (sent.length === 0) return;
    setText(byId("announce"), t("documents.sent", { names: sent.map((file) => file.name).join(", ") }));
    this.dispatchEvent(new Event("sent"));
  }

  #show() {
    const ready = this.files.some((file) => file.fit);
    this.queue.hidden = this.files.length === 0;
    this.send.disabled = this.sending || !ready || !this.conforms.checked;
    this.conforms.disabled = this.sending;
    const note = this.sending
      ? t("documents.sending")
      : ready && !this.conforms.checked
        ? t("documents.conforms.first")
        : "";
    setText(this.note, note);
    this.note.hidden = note === "";
  }
}

/** Whether it is seen to already. */
let missed = false;

/** A file that is dropped beside the panel would be opened by the browser, in the place of the meeting. */
function missedDropsStay() {
  if (missed) return;
  missed = true;
  for (const name of ["dragover", "drop"]) {
    addEventListener(name, (event) => {
      if (!(event instanceof DragEvent) || event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "none";
    });
  }
}

/** One chosen file: how far it is, or why it cannot be sent. */
class QueuedFile {
  /**
   * @param {File} file
   * @param {() => void} takeOut
   */
  constructor(file, takeOut) {
    const { name } = file;
    this.file = file;
    this.name = name;
    this.bar = h("progress", { max: 1, value: 0, "aria-label": t("documents.progress", { name }), hidden: true });
    this.trouble = h("p", { class: "file-trouble", role: "alert", hidden: true });
    this.remove = h(
      "button",
      { type: "button", class: "panel-close", "aria-label": t("documents.takeOut", { name }), onclick: takeOut },
      icon("cross"),
    );
    this.element = h(
      "li",
      { "data-file": name },
      h(
        "div",
        { class: "file-line" },
        h("span", { class: "file-name" }, name, h("span", { class: "hint" }, ` ${fileSize(file.size)}`)),
        this.remove,
      ),
      this.bar,
      this.trouble,
    );
    const unfit = unfitWords(file);
    this.fit = unfit === null;
    this.element.dataset.state = this.fit ? "chosen" : "unfit";
    if (unfit) this.#complain(unfit);
  }

  /**
   * @param {Session} session
   * @returns {Promise<boolean>} whether the server took it
   */
  async send(session) {
    this.element.dataset.state = "sending";
    this.trouble.hidden = true;
    this.bar.hidden = false;
    this.bar.value = 0;
    this.remove.hidden = true;
    try {
      await session.sendDocument(this.file, (part) => {
        this.bar.value = part;
      });
      this.element.dataset.state = "sent";
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) session.end();
      this.element.dataset.state = "failed";
      // What the file itself is refused for does not change by trying again.
      this.fit = ![413, 415, 422].includes(error.status);
      this.bar.hidden = true;
      this.remove.hidden = false;
      this.#complain(wordsOf(error));
      return false;
    }
  }

  /** @param {string} words */
  #complain(words) {
    this.trouble.hidden = false;
    setText(this.trouble, words);
  }
}

/** @param {File} file @returns {string | null} */
function unfitWords(file) {
  if (file.size > MAX_BYTES) return t("problem.document-too-large");
  if (file.size === 0) return t("unfit.empty");
  const name = file.name.toLowerCase();
  return ENDINGS.some((ending) => name.endsWith(ending)) ? null : t("problem.document-type");
}

/**
 * Three tabs: one stop of the tab key, arrows between them.
 * @param {Record<string, DocumentList>} lists
 */
function tabRow(lists) {
  const counts = Object.fromEntries(TABS.map((tab) => [tab, h("span", { class: "tab-count" })]));
  const buttons = TABS.map((tab) =>
    h(
      "button",
      { id: `tab-${tab}`, type: "button", role: "tab", "aria-controls": `list-${tab}`, onclick: () => choose(tab) },
      t(`documents.tab.${tab}`),
      counts[tab],
    ),
  );
  /** @param {Tab} chosen */
  const choose = (chosen) => {
    TABS.forEach((tab, at) => {
      const list = lists[tab];
      buttons[at]?.setAttribute("aria-selected", String(tab === chosen));
      buttons[at]?.setAttribute("tabindex", tab === chosen ? "0" : "-1");
      if (list) list.element.hidden = tab !== chosen;
    });
  };
  const row = h("div", { class: "tabs", role: "tablist", "aria-label": t("documents.heading") }, ...buttons);
  row.addEventListener("keydown", (event) => {
    const at = buttons.findIndex((button) => button === event.target);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? TABS.length - 1 : step && at + step;
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = (to + TABS.length) % TABS.length;
    choose(TABS[next] ?? "sent");
    buttons[next]?.focus();
  });
  choose("sent");
  return {
    element: h("div", { class: "lists" }, row, ...TABS.map((tab) => lists[tab]?.element)),
    choose,
    /**
     * @param {Tab} tab
     * @param {number} n
     */
    count(tab, n) {
      const count = counts[tab];
      if (count) setText(count, n > 0 ? ` (${n})` : "");
    },
  };
}

class DocumentList {
  /**
   * @param {App} app
   * @param {Session} session
   * @param {Tab} tab
   */
  constructor(app, session, tab) {
    this.app = app;
    this.session = session;
    this.tab = tab;
    /** @type {Map<string, DocumentRow>} */
    this.rows = new Map();
    this.size = 0;
    this.empty = h("p", { class: "hint" }, t(`documents.none.${tab}`));
    this.list = h("ul", { class: "documents plain" });
    this.element = h(
      "div",
      { id: `list-${tab}`, role: "tabpanel", "aria-labelledby": `tab-${tab}`, tabindex: 0 },
      this.empty,
      this.list,
    );
  }

  /** @param {SessionView} view */
  update(view) {
    const shown = (view.documents ?? []).filter((document) => belongs(document, this.tab, view));
    this.size = shown.length;
    this.empty.hidden = shown.length > 0;
    this.list.hidden = shown.length === 0;
    const before = this.rows;
    this.rows = new Map(
      shown.map((document) => [
        document.id,
        before.get(document.id) ?? new DocumentRow(this.app, this.session, document, this.tab),
      ]),
    );
    for (const [id, row] of before) if (!this.rows.has(id)) row.element.remove();
    for (const document of shown) {
      const row = this.rows.get(document.id);
      row?.update(document, view);
      if (row && !row.element.parentElement) this.list.append(row.element);
    }
  }
}

/**
 * @param {DocumentView} document
 * @param {Tab} tab
 * @param {SessionView} view
 */
function belongs(document, tab, view) {
  if (tab === "registered") return document.state === "registered";
  return (document.by === view.me.id) === (tab === "sent");
}

class DocumentRow {
  /**
   * @param {App} app
   * @param {Session} session
   * @param {DocumentView} document
   * @param {Tab} tab
   */
  constructor(app, session, document, tab) {
    this.app = app;
    this.session = session;
    this.id = document.id;
    this.name = document.name;
    this.label = h("span", { class: "label", hidden: true });
    this.facts = h("p", { class: "hint" });
    this.protocol = h("p", { class: "protocol", hidden: true });
    this.download = this.#button("download", "download", t("documents.download"));
    this.remove = this.#button("delete", "bin", t("documents.delete"));
    this.remove.classList.add("danger");
    this.receipt = this.#button("receipt", "receipt", t("documents.receipt"));
    this.register = this.#button("register", "stamp", t("documents.register"));
    this.download.addEventListener("click", () => pressed(this.download, () => this.#save(false)));
    this.receipt.addEventListener("click", () => pressed(this.receipt, () => this.#save(true)));
    this.remove.addEventListener("click", () => this.#delete());
    this.register.addEventListener("click", () => this.#askSubject());
    this.registration = tab === "received" ? this.#registrationForm() : null;
    this.element = h(
      "li",
      { "data-document": this.id },
      h("p", { class: "document-name" }, h("strong", {}, document.name), " ", this.label),
      this.facts,
      this.protocol,
      h(
        "div",
        { class: "row-actions" },
        tab === "received" && this.register,
        this.receipt,
        this.download,
        tab === "sent" && this.remove,
      ),
      this.registration,
    );
  }

  /**
   * @param {string} name
   * @param {string} symbol
   * @param {string} words
   */
  #button(name, symbol, words) {
    const button = h("button", { type: "button", class: "button small", [`data-${name}`]: this.id });
    button.append(icon(symbol), words);
    // The same word stands in every row: whoever does not see the row hears the name too.
    button.setAttribute("aria-label", `${words}: ${this.name}`);
    return button;
  }

  /**
   * @param {DocumentView} document
   * @param {SessionView} view
   */
  update(document, view) {
    const { state } = document;
    const sender = view.participants.find((person) => person.id === document.by);
    this.element.dataset.state = state;
    this.label.hidden = state === "received";
    this.label.dataset.state = state;
    setText(this.label, state === "received" ? "" : t(`documents.state.${state}`));
    const by = document.by === view.me.id ? null : sender?.name;
    setText(this.facts, [by, fileSize(document.bytes), moment(document.handed_in)].filter(Boolean).join(" · "));
    this.protocol.hidden = document.protocol === null;
    if (document.protocol) setText(this.protocol, t("documents.protocol", { number: document.protocol }));
    this.receipt.hidden = state !== "registered";
    this.download.hidden = state === "deleted";
    const free = state === "received" || state === "refused";
    this.remove.hidden = !free || !documentsOpen(view);
    this.register.hidden = !free || view.me.role !== "operator";
    if (this.register.hidden && this.registration) this.registration.hidden = true;
  }

  #registrationForm() {
    const subject = h("input", { id: `subject-${this.id}`, name: "subject", maxlength: 200, required: true });
    const submit = h("button", { class: "button primary small", type: "submit" }, t("documents.register.confirm"));
    const form = h(
      "form",
      { id: `register-${this.id}`, class: "beside", hidden: true },
      h("div", { class: "field" }, h("label", { for: subject.id }, t("documents.register.subject")), subject),
      submit,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const json = { subject: subject.value.trim() };
      void pressed(submit, async () => {
        if (!(await this.app.attempt(() => this.session.command("POST", `documents/${this.id}/register`, json)))) return;
        form.hidden = true;
        this.download.focus();
      });
    });
    return form;
  }

  #askSubject() {
    const form = this.registration;
    const subject = form?.querySelector("input");
    if (!form || !subject) return;
    form.hidden = !form.hidden;
    if (form.hidden) return;
    if (subject.value === "") subject.value = this.session.view?.room.reason ?? "";
    subject.focus();
    subject.select();
  }

  async #delete() {
    const question = t("documents.delete.confirm", { name: this.name });
    if (!(await confirmed(question, t("documents.delete"), t("operator.cancel")))) return;
    await this.app.attempt(() => this.session.deleteDocument(this.id));
  }

  /** @param {boolean} receipt */
  async #save(receipt) {
    await this.app.attempt(async () => {
      const bytes = await this.session.fetchDocument(this.id, receipt);
      const address = URL.createObjectURL(bytes);
      const stem = this.name.replace(/\.[^.]*$/, "");
      h("a", { href: address, download: receipt ? `${t("documents.receipt.file")}-${stem}.pdf` : this.name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    });
  }
}
