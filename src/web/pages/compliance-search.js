/**
 * Looking for recordings. Names for tests: #search-form with its fields, #search-results, [data-room] with a button.
 */

import { complete } from "./compliance-forms.js";
import { beginOfDay, day, moment, plural, span, t, word } from "./compliance-i18n.js";
import { h } from "./dom.js";
import { roleName } from "./i18n.js";

/** @typedef {import("./compliance-api.js").Found} Found */

const PAGE = 20;

/**
 * The screen with the form. What was found stays while a recording is looked at.
 * @param {import("./compliance-api.js").Compliance} api
 * @param {{open: (found: Found, reason: string) => void, fail: (error: unknown) => void, announce: (text: string) => void}} page
 */
export function searchScreen(api, page) {
  /** @type {Record<string, unknown>} */
  let asked = {};
  let count = 0;
  const list = h("ul", { class: "found", id: "search-results" });
  const summary = h("h2", { id: "search-summary", tabindex: -1, hidden: true });
  const more = h("button", { type: "button", class: "button", id: "search-more", hidden: true, onclick: () => void run(null) }, t("search.more"));
  const results = h("section", { class: "results", "aria-labelledby": "search-summary" }, summary, list, more);
  const submit = h("button", { type: "submit", class: "button primary", id: "search-submit" }, t("search.submit"));
  /** @type {string | null} */
  let cursor = null;

  const form = h(
    "form",
    { class: "card", id: "search-form", novalidate: true },
    h("h1", { tabindex: -1, id: "screen-heading" }, t("search.heading")),
    h("p", { class: "hint" }, t("search.text")),
    field("search-reason", t("search.reason"), { required: true, maxlength: 500, autocomplete: "off", "data-missing": t("missing.reason") }, t("search.reason.hint"), true),
    h(
      "div",
      { class: "search-fields" },
      field("search-from", t("search.from"), { type: "date" }),
      field("search-to", t("search.to"), { type: "date" }),
      field("search-office", t("search.office"), { autocomplete: "off" }),
      field("search-counter", t("search.counter"), { autocomplete: "off" }),
      field("search-fiscal", t("search.fiscal"), { autocomplete: "off", maxlength: 16, spellcheck: "false", class: "typed" }),
      field("search-room", t("search.room"), { autocomplete: "off", maxlength: 36, spellcheck: "false" }),
    ),
    h("div", { class: "actions" }, submit),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (complete(form)) void run(form);
  });
  return h("div", { class: "stack" }, form, results);

  /** @param {HTMLFormElement | null} anew `null`: the next page */
  async function run(anew) {
    if (anew) asked = wanted();
    submit.disabled = more.disabled = true;
    try {
      const found = await api.search(anew ? asked : { ...asked, cursor });
      cursor = found.next_cursor;
      if (anew) [count] = [(list.replaceChildren(), 0)];
      const items = found.recordings.map((one) => item(one, (chosen) => page.open(chosen, String(asked.reason))));
      list.append(...items);
      count += items.length;
      summary.textContent = count === 0 ? t("search.none") : plural("search.found", count, { more: cursor ? t("search.andMore") : "" });
      summary.hidden = false;
      more.hidden = cursor === null;
      if (anew) summary.focus();
      else items[0]?.querySelector("button")?.focus();
    } catch (error) {
      page.fail(error);
    }
    submit.disabled = more.disabled = false;
  }

  function wanted() {
    /** @param {string} id */
    const value = (id) => /** @type {HTMLInputElement} */ (form.querySelector(`#${id}`)).value.trim();
    /** @type {Record<string, unknown>} */
    const search = { reason: value("search-reason"), limit: PAGE };
    if (value("search-from")) search.from = beginOfDay(value("search-from"));
    if (value("search-to")) search.to = beginOfDay(value("search-to"), 1);
    if (value("search-office")) search.office = value("search-office");
    if (value("search-counter")) search.counter = value("search-counter");
    if (value("search-fiscal")) search.fiscal_code = value("search-fiscal").toUpperCase().replaceAll(/\s/g, "");
    if (value("search-room")) search.room = value("search-room").toLowerCase();
    return search;
  }
}

/**
 * @param {string} id
 * @param {string} label
 * @param {Record<string, unknown>} attributes
 * @param {string} [hint]
 * @param {boolean} [wide]
 */
export function field(id, label, attributes, hint, wide = false) {
  const described = hint ? `${id}-hint` : null;
  return h(
    "div",
    { class: wide ? "field wide" : "field" },
    h("label", { for: id }, label),
    hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null,
    h("input", { id, type: "text", ...attributes, "aria-describedby": described }),
  );
}

/** @param {Found} found @param {(found: Found) => void} open */
function item(found, open) {
  const heading = span(found.start, found.end);
  const people = found.participants.map(({ name, role }) => h("li", {}, name, " ", h("span", { class: "hint" }, roleName(role))));
  const button = h(
    "button",
    { type: "button", class: "button small", onclick: () => open(found), "aria-label": t("search.openOf", { when: heading }) },
    t("search.open"),
  );
  return h(
    "li",
    { class: "card", "data-room": found.room },
    h("div", { class: "found-head" }, h("h3", {}, heading), badges(found)),
    h("p", {}, `${found.office} · ${found.counter}`, h("br"), h("span", { class: "hint" }, found.reason)),
    h("ul", { class: "found-people" }, ...people),
    h("div", { class: "actions" }, button),
  );
}

/** Where it stands, in words. @param {Found} found */
export function badges(found) {
  const percent = found.state === "sealing" && found.sealing_percent !== null ? ` ${Math.floor(found.sealing_percent)} %` : "";
  const until = found.retain_until ? t("state.until", { until: day(found.retain_until) }) : null;
  return h(
    "ul",
    { class: "badges" },
    h("li", { class: "tag", "data-state": found.state }, word("state", found.state) + percent),
    found.hold ? h("li", { class: "tag", "data-state": "held" }, t("state.held")) : null,
    found.destroyed ? h("li", { class: "tag" }, moment(found.destroyed)) : null,
    until && !found.destroyed ? h("li", { class: "tag" }, until) : null,
    found.outcome ? h("li", { class: "tag" }, word("outcome", found.outcome)) : null,
  );
}
