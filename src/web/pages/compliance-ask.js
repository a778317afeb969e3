/** Dialogs that ask for a reason before something is done, and for whatever else belongs to it. */

import { t } from "./compliance-i18n.js";
import { complete } from "./compliance-forms.js";
import { byId, h } from "./dom.js";

/** Longest reason that the server takes, characters. */
const LONGEST_REASON = 500;

/**
 * @param {object} question
 * @param {string} question.heading
 * @param {string} question.text
 * @param {string} question.yes
 * @param {string} [question.reason] to begin with
 * @param {HTMLElement} [question.more] further fields; those with a name are answered too
 * @param {string} [question.confirm] what must be ticked, if it cannot be taken back
 * @returns {Promise<({reason: string} & Record<string, string>) | null>} `null`: nothing is to be done
 */
export function ask({ heading, text, yes, reason = "", more, confirm }) {
  const why = h("textarea", { id: "ask-text", name: "reason", rows: 3, required: true, maxlength: LONGEST_REASON, "aria-describedby": "ask-hint", "data-missing": t("missing.reason") });
  why.value = reason;
  const no = h("button", { type: "button", class: "button", id: "ask-no" }, t("ask.no"));
  const sure = confirm ? h("label", { class: "sure" }, h("input", { type: "checkbox", required: true, id: "ask-sure", "data-missing": t("missing.sure") }), h("span", {}, confirm)) : null;
  const form = h(
    "form",
    { class: "ask", novalidate: true },
    h("h2", { id: "ask-heading" }, heading),
    h("p", {}, text),
    more ?? null,
    h("div", { class: "field wide" }, h("label", { for: "ask-text" }, t("ask.reason")), h("p", { class: "hint", id: "ask-hint" }, t("ask.hint")), why),
    sure ? h("div", {}, sure) : null,
    h("div", { class: "actions" }, no, h("button", { type: "submit", class: confirm ? "button danger" : "button primary", id: "ask-yes" }, yes)),
  );
  const dialog = h("dialog", { "aria-labelledby": "ask-heading", id: "ask-reason" }, form);
  byId("main").append(dialog);
  return new Promise((resolve) => {
    /** @type {({reason: string} & Record<string, string>) | null} */
    let answer = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!complete(form)) return;
      // One line: that is how it stands in the audit.
      const line = why.value.replaceAll(/\s+/g, " ").trim();
      const fields = [...new FormData(form)].map(([name, value]) => [name, String(value)]);
      answer = { ...Object.fromEntries(fields), reason: line };
      dialog.close();
    });
    no.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    dialog.showModal();
    if (more) /** @type {HTMLElement | null} */ (more.querySelector("input"))?.focus();
    else why.focus();
  });
}
