/**
 * The entry page of citizens and operators: link → code → consent → devices → waiting room → room → ended.
 *
 * The server's SessionView decides which screen is shown (`screenOf`); this page keeps only what the server cannot know:
 * whether the person has left or declined, and the devices. A reload continues with the session token kept in
 * sessionStorage.
 *
 * Stable names for tests (`body[data-step]` names the screen: loading, code, consent, declined, devices, waiting, room,
 * left, ended, message):
 *   #code-input #code-submit          code of the SMS; [data-admission] tells what it would come to
 *   #consent-accept #consent-decline  recording notice
 *   #preview #level #devices-retry #enter-room    device check; #choose-camera #choose-microphone #choose-speaker
 *   #waiting                          waiting room of everyone but the operator
 *   #room                             the room; data-flow="true" while the server forwards media
 *   [data-participant="<id>"]         a person's tile, with data-role, one <video> and (not our own) one <audio>;
 *                                     our own has data-self="true"; a shared screen is [data-screen="<id>"]
 *   #elapsed #recording (data-state) #recording-fault (data-fault) #status #link (data-state)
 *   #toggle-microphone #toggle-camera #toggle-documents #toggle-chat #share #settings #info #leave #unblock-audio
 *   #weak                             poor connection; documents.js and chat.js name what is in their panels
 *   #waits                            operator: who waits, while another panel is open; [data-admit-now] by person's id
 *   #operator-panel #operator-open    operator; a person's row is [data-person="<id>"] with data-place
 *   [data-admit] [data-send-back] [data-remove] [data-attest] [data-attest-confirm] [data-withdraw]   by person's id
 *   [data-feature="documents"|"chat"|"sharing"] [data-step-id] #recording-health #grant #outcome-<outcome> #extension #conclude
 *   #confirm-yes #confirm-no          question before a removal
 *   #left #rejoin #ended              after leaving, after the end (data-reason: concluded, removed, session, …)
 *   #problem                          alert that says what went wrong (data-slug: last part of the problem's type)
 * `window.sportello` = { pc, view, timings } shows the current connection, view and moments of the media handshake.
 */

import { Problem, Session, welcome } from "./api.js";
import { deviceScreen } from "./devicecheck.js";
import { Devices } from "./devices.js";
import { byId, h, icon } from "./dom.js";
import { codeScreen, consentScreen, endedScreen, loadingScreen, messageScreen, waitingScreen } from "./entry.js";
import { languageLinks, t, translateDocument } from "./i18n.js";
import { Media } from "./media.js";
import { wordsOf } from "./problems.js";
import { roomScreen } from "./room.js";

/** @typedef {import("./types.js").SessionView} SessionView */
/** @typedef {import("./types.js").Screen} Screen */
/** @typedef {"loading" | "code" | "consent" | "declined" | "devices" | "waiting" | "room" | "left" | "ended" | "message"} Step */

/** Phases after which nobody meets any more. @type {import("./types.js").Phase[]} */
const OVER = ["concluded", "extended", "closed", "cancelled", "expired"];

/** `/join/<token>`, or `/operator/rooms/<room>`: there the console has put the operator's session into the store. */
const place = location.pathname.split("/");
const seated = place[1] === "operator";
const joinToken = (seated ? place[3] : place[2]) ?? "";
const storeKey = `sportello.session.${joinToken}`;

export class App {
  constructor() {
    this.devices = new Devices();
    /** Where the operator goes back to. */
    this.home = seated ? `/operator${location.search}` : null;
    /** @type {Session | null} */
    this.session = null;
    /** @type {Media | null} */
    this.media = null;
    /** @type {Step | null} */
    this.step = null;
    /** @type {Screen | null} */
    this.screen = null;
    this.left = false;
    this.declined = false;
    /** The person has seen that the devices work, here or before a reload. */
    this.checked = false;
  }

  async start() {
    this.show("loading", loadingScreen);
    const token = sessionStorage.getItem(storeKey);
    if (!token) return this.begin();
    const session = new Session(token);
    try {
      const view = await session.load();
      if (view.place === "waiting" || view.place === "inside") {
        await this.devices.open();
        this.checked = this.devices.ready;
      }
      this.adopt(session);
    } catch (error) {
      // 429 is only ever said to a token that is not valid: the code comes next, as after 401.
      if (error instanceof Problem && error.passing && error.status !== 429) {
        this.complain(error);
        setTimeout(() => void this.start(), 2_000);
      } else {
        sessionStorage.removeItem(storeKey);
        await this.begin();
      }
    }
  }

  /** From the link: who, when, where, and the code. */
  async begin() {
    if (this.home) return location.replace(this.home);
    try {
      const appointment = await welcome(joinToken);
      this.show("code", () => codeScreen(this, joinToken, appointment));
    } catch (error) {
      if (error instanceof Problem && error.passing) {
        this.complain(error);
        setTimeout(() => void this.begin(), 2_000);
      } else {
        this.show("message", () => messageScreen(t("welcome.unknown.heading"), t("welcome.unknown.text")));
      }
    }
  }

  /** A code was right. @param {string} token */
  async admitted(token) {
    sessionStorage.setItem(storeKey, token);
    const session = new Session(token);
    await session.load();
    this.adopt(session);
  }

  /** @param {Session} session */
  adopt(session) {
    this.session = session;
    this.media = new Media(session, this.devices);
    session.addEventListener("view", () => this.follow());
    session.addEventListener("ended", () => this.sessionEnded());
    session.listen();
    this.follow();
  }

  /** Shows what the view says, and holds the media connection as long as it may stand. */
  follow() {
    const { session, media } = this;
    const view = session?.view;
    if (!session || !media || !view || session.closed) return;
    const step = this.screenOf(view);
    if (step === "ended") {
      this.finish();
      this.show(step, () => endedScreen(this, view, this.endOf(view)));
      this.screen?.update?.(view);
      return;
    }
    if (step === "room" && view.place === "inside") media.start();
    else media.stop(view.place !== "inside");
    this.show(step, () => this.make(step, view, session, media));
    this.screen?.update?.(view);
  }

  /** @param {SessionView} view @returns {Step} */
  screenOf(view) {
    if (OVER.includes(view.phase) || view.place === "removed") return "ended";
    if (this.left) return "left";
    if (this.declined) return "declined";
    if (view.consent?.text_version !== view.consent_text_version && view.place === "admitted") return "consent";
    if (view.place === "admitted" || !this.checked) return "devices";
    // The operator opens the room from the room itself.
    if (view.place === "waiting" && view.me.role !== "operator") return "waiting";
    return "room";
  }

  /**
   * @param {Step} step
   * @param {SessionView} view
   * @param {Session} session
   * @param {Media} media
   * @returns {Screen}
   */
  make(step, view, session, media) {
    switch (step) {
      case "consent":
        return consentScreen(this, view, session);
      case "declined":
        return messageScreen(
          t("consent.declined.heading"),
          t("consent.declined.text"),
          t("consent.declined.back"),
          () => {
            this.declined = false;
            this.follow();
          },
        );
      case "devices":
        return deviceScreen(this, view, session);
      case "waiting":
        return waitingScreen(this, session);
      case "left": {
        const screen = messageScreen(
          t("left.heading"),
          t("left.text"),
          t("left.back"),
          () => this.comeBack(),
          "rejoin",
        );
        screen.element.id = "left";
        if (this.home) screen.element.append(h("p", {}, h("a", { class: "button", href: this.home }, t("console.back"))));
        return screen;
      }
      default:
        return roomScreen(this, view, session, media);
    }
  }

  async leave() {
    const session = this.session;
    if (!session) return;
    this.left = true;
    this.checked = false;
    this.media?.stop();
    this.devices.release();
    this.follow();
    await this.attempt(() => session.leave());
  }

  comeBack() {
    this.left = false;
    this.follow();
  }

  sessionEnded() {
    sessionStorage.removeItem(storeKey);
    this.finish();
    const view = this.session?.view ?? null;
    this.show("ended", () => endedScreen(this, view, view ? this.endOf(view) : "session"));
  }

  /** @param {SessionView} view */
  endOf(view) {
    if (view.place === "removed") return "removed";
    if (view.phase === "cancelled" || view.phase === "expired") return view.phase;
    return OVER.includes(view.phase) ? "concluded" : "session";
  }

  /** The server has ended the media already. */
  finish() {
    this.media?.stop(true);
    this.devices.release();
  }

  /**
   * Puts a screen in the page, unless it is there already.
   * @param {Step} step
   * @param {() => Screen} make
   */
  show(step, make) {
    if (this.step === step) return;
    this.screen?.close?.();
    this.relieve();
    this.step = step;
    this.screen = make();
    document.body.dataset.step = step;
    byId("screen").replaceChildren(this.screen.element);
    scrollTo(0, 0);
    const heading = this.screen.element.querySelector("h1");
    document.title = [heading?.textContent, t("page.title")].filter(Boolean).join(" · ");
    heading?.setAttribute("tabindex", "-1");
    heading?.focus({ preventScroll: true });
  }

  /**
   * Does something that may be refused; the refusal is shown.
   * @param {() => Promise<unknown>} action
   * @returns {Promise<boolean>} whether it went well
   */
  async attempt(action) {
    try {
      await action();
      this.relieve();
      return true;
    } catch (error) {
      this.complain(error);
      return false;
    }
  }

  /** @param {unknown} error */
  complain(error) {
    if (!(error instanceof Problem)) {
      console.error(error);
      return;
    }
    if (error.status === 401 && this.session) return this.session.end();
    this.say(wordsOf(error), error.slug);
  }

  /**
   * @param {string} text
   * @param {string} slug
   */
  say(text, slug) {
    const region = byId("problem");
    region.dataset.slug = slug;
    const close = h(
      "button",
      { type: "button", class: "problem-close", "aria-label": t("problem.dismiss"), onclick: () => this.relieve() },
      icon("cross"),
    );
    region.replaceChildren(h("p", {}, text), close);
  }

  relieve() {
    const region = byId("problem");
    delete region.dataset.slug;
    region.replaceChildren();
  }
}

const app = new App();

Object.defineProperty(window, "sportello", {
  value: {
    get pc() {
      return app.media?.pc ?? null;
    },
    get view() {
      return app.session?.view ?? null;
    },
    get timings() {
      return app.media?.timings ?? null;
    },
  },
});

// The server would notice a closed page only after ICE's timeout; until then the others would see a frozen picture.
addEventListener("pagehide", () => {
  app.media?.stop();
  app.session?.close();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

translateDocument();
byId("languages").setAttribute("aria-label", t("page.languages"));
byId("languages").append(...languageLinks());
void app.start();
