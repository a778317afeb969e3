/**
 * Words and times. The language is `?lang=`, else the first of the browser's that there is a catalogue for, else Italian;
 * times are always those of the counter, Europe/Rome, wherever the person sits.
 */

import de from "./i18n/de.js";
import en from "./i18n/en.js";
import it from "./i18n/it.js";

/** @typedef {keyof typeof it} Key */
/** @typedef {Record<string, string | number>} Values */

/** Written as each speaker reads it. @type {Record<string, string>} */
export const LANGUAGES = { it: "Italiano", en: "English", de: "Deutsch" };

/** @type {Record<string, Record<Key, string>>} */
const CATALOGUES = { it, en, de };
const ZONE = "Europe/Rome";

export const language = chooseLanguage();
const catalogue = CATALOGUES[language] ?? it;
/** English as it is read in Europe: 15:20, and the day before the month. */
const locale = language === "en" ? "en-GB" : language;
const plurals = new Intl.PluralRules(language);
const clock = new Intl.DateTimeFormat(locale, { timeZone: ZONE, hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(locale, {
  timeZone: ZONE,
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
});
const seconds = new Intl.DateTimeFormat(locale, { timeZone: ZONE, timeStyle: "medium" });
const short = new Intl.DateTimeFormat(locale, { timeZone: ZONE, dateStyle: "short", timeStyle: "short" });
const oneDigit = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const lists = new Intl.ListFormat(language, { type: "conjunction" });

function chooseLanguage() {
  const asked = [new URLSearchParams(location.search).get("lang"), ...navigator.languages];
  for (const tag of asked) {
    const short = tag?.slice(0, 2).toLowerCase();
    if (short && short in CATALOGUES) return short;
  }
  return "it";
}

/**
 * @param {Key} key
 * @param {Values} [values] what stands for `{name}` in the text
 * @returns {string}
 */
export function t(key, values = {}) {
  return catalogue[key].replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * A text that depends on a number: the catalogue has `<key>.one` and `<key>.other`.
 * @param {"code.attempts" | "problem.presence-too-short.seconds" | "operator.recording.behind" | "grant.not_yet"
 *   | "ended.extension" | "operator.waits"} key
 * @param {number} n
 * @param {Values} [values]
 */
export function plural(key, n, values = {}) {
  const form = plurals.select(n) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { n, ...values });
}

/**
 * @param {string} key
 * @returns {key is Key}
 */
export function has(key) {
  return key in catalogue;
}

/**
 * A text whose key is made of a word from the server, with something to say if that word is new to this page.
 * @param {string} key
 * @param {string} otherwise
 */
export function word(key, otherwise) {
  return has(key) ? t(key) : otherwise;
}

/** @param {import("./types.js").Role} role */
export const roleName = (role) => word(`role.${role}`, role);

/** @param {string[]} items */
export const listing = (items) => lists.format(items);

/** @param {string} time */
export const hour = (time) => clock.format(new Date(time));

/** With its seconds. @param {string} time */
export const second = (time) => seconds.format(new Date(time));

/** The day it is at the counter, as 2026-11-25. */
export const today = () => new Date().toLocaleDateString("sv-SE", { timeZone: ZONE });

/** Day and hour in few letters. @param {string} time */
export const moment = (time) => short.format(new Date(time));

/** @param {number} bytes */
export const fileSize = (bytes) =>
  bytes < 1024 * 1024 ? `${Math.max(1, Math.round(bytes / 1024))} kB` : `${oneDigit.format(bytes / 1024 / 1024)} MB`;

/** @param {string} time */
export const date = (time) => day.format(new Date(time));

/** @param {string} time */
export const dateAndHour = (time) => t("time.dateAndHour", { date: date(time), hour: hour(time) });

/**
 * @param {number} milliseconds
 * @returns {string} 00:00:00
 */
export function elapsed(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

/** Tells the document its language and fills the elements that carry `data-i18n`. */
export function translateDocument() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-i18n]")) {
    const key = element.getAttribute("data-i18n") ?? "";
    if (has(key)) element.textContent = t(key);
  }
}

/** Links to this page in the other languages. @returns {HTMLElement[]} */
export function languageLinks() {
  return Object.entries(LANGUAGES).map(([code, name]) => {
    const address = new URL(location.href);
    address.searchParams.set("lang", code);
    const link = document.createElement("a");
    link.href = address.pathname + address.search;
    link.lang = code;
    link.hreflang = code;
    link.title = name;
    link.textContent = code.toUpperCase();
    if (code === language) link.setAttribute("aria-current", "true");
    return link;
  });
}
