/**
 * The compliance console: sign in, look for a recording, say why, look at it. The key stays in this tab alone.
 * Names for tests: #key, #sign-in, #sign-out, #ask-reason with #ask-text and #ask-yes.
 */

import { Problem } from "./api.js";
import { Compliance } from "./compliance-api.js";
import { ask } from "./compliance-ask.js";
import { complete } from "./compliance-forms.js";
import { moment, t } from "./compliance-i18n.js";
import { problemWords } from "./compliance-problems.js";
import { recordingScreen } from "./compliance-recording.js";
import { searchScreen } from "./compliance-search.js";
import { byId, h, setText } from "./dom.js";
import { languageLinks, language, t as common } from "./i18n.js";

/** Where the key is while the tab is open. */
const STORED = "sportello.compliance";

/** @type {{close: () => void} | null} */
let shown = null;
/** @type {HTMLElement | null} */
let search = null;

/** @param {HTMLElement} element @param {string} title */
function show(element, title) {
  shown?.close();
  shown = null;
  byId("problem").replaceChildren();
  byId("screen").replaceChildren(element);
  document.title = `${title} – ${t("page.title")}`;
  scrollTo(0, 0);
  /** @type {HTMLElement | null} */ (element.querySelector("#screen-heading"))?.focus();
}

/** @param {unknown} error */
function fail(error) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401 && sessionStorage.getItem(STORED) !== null) {
    signOut();
    complain(t("problem.unauthenticated"));
    return;
  }
  complain(problemWords(error));
}

const clear = () => byId("problem").replaceChildren();

/** @param {string} text */
function complain(text) {
  const close = h("button", { type: "button", class: "problem-close", "aria-label": common("room.close") }, "×");
  close.addEventListener("click", clear);
  byId("problem").replaceChildren(h("p", {}, text), close);
}

/** @param {string} text */
const announce = (text) => setText(byId("announce"), text);

function signOut() {
  sessionStorage.removeItem(STORED);
  byId("sign-out").hidden = true;
  search = null;
  showSignIn();
}

function showSignIn() {
  const key = h("input", { id: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "key-hint", "data-missing": t("missing.key") });
  const button = h("button", { type: "submit", class: "button primary", id: "sign-in" }, t("signin.submit"));
  const form = h(
    "form",
    { class: "card narrow", novalidate: true },
    h("h1", { tabindex: -1, id: "screen-heading" }, t("signin.heading")),
    h("p", { class: "lead" }, t("signin.text")),
    h("div", { class: "field wide" }, h("label", { for: "key" }, t("signin.key")), h("p", { class: "hint", id: "key-hint" }, t("signin.hint")), key),
    h("div", { class: "actions" }, button),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!complete(form)) return;
    button.disabled = true;
    const api = new Compliance(key.value.trim());
    try {
      await api.check();
      sessionStorage.setItem(STORED, api.key);
      begin(api);
    } catch (error) {
      const denied = error instanceof Problem && (error.status === 401 || error.status === 403);
      if (denied) complain(t("problem.badKey"));
      else fail(error);
      key.select();
    }
    button.disabled = false;
  });
  show(form, t("signin.heading"));
}

/** @param {Compliance} api */
function begin(api) {
  byId("sign-out").hidden = false;
  search = searchScreen(api, { fail, announce, open: (found, reason) => void open(api, found, reason) });
  show(search, t("search.heading"));
}

/**
 * Nobody sees a recording without having said why.
 * @param {Compliance} api
 * @param {import("./compliance-api.js").Found} found
 * @param {string} reason
 */
async function open(api, found, reason) {
  const why = await ask({ heading: t("access.heading"), text: t("access.text"), yes: t("access.submit"), reason });
  if (why === null) return;
  try {
    const access = await api.open(found.room, why.reason);
    const back = () => {
      if (search) show(search, t("search.heading"));
    };
    const screen = await recordingScreen(api, found, access, {
      fail,
      clear,
      announce,
      back,
      reopen: (latest) => void open(api, latest, why.reason),
    });
    show(screen.element, t("recording.heading", { when: moment(found.start) }));
    shown = screen;
  } catch (error) {
    fail(error);
  }
}

document.documentElement.lang = language;
setText(byId("site-name"), t("page.title"));
setText(byId("sign-out"), t("signin.out"));
byId("sign-out").addEventListener("click", signOut);
byId("languages").setAttribute("aria-label", common("page.languages"));
byId("languages").append(...languageLinks());
const known = sessionStorage.getItem(STORED);
if (known === null) showSignIn();
else begin(new Compliance(known));
