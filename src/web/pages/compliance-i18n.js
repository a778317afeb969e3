/** The words of the compliance console: catalogues of its own, in the language that the other pages choose. */

import de from "./i18n/compliance/de.js";
import en from "./i18n/compliance/en.js";
import it from "./i18n/compliance/it.js";
import { language } from "./i18n.js";

/** @typedef {keyof typeof it} Key */

/** @type {Record<string, Record<Key, string>>} */
const CATALOGUES = { it, en, de };
const ZONE = "Europe/Rome";
const catalogue = CATALOGUES[language] ?? it;
const plurals = new Intl.PluralRules(language);
/** Days and hours as in Europe: 3:18 PM and 11/25 are not. */
const locale = language === "en" ? "en-GB" : language;
const moments = new Intl.DateTimeFormat(locale, { timeZone: ZONE, dateStyle: "medium", timeStyle: "medium" });
const hours = new Intl.DateTimeFormat(locale, { timeZone: ZONE, timeStyle: "medium" });
const days = new Intl.DateTimeFormat(locale, { timeZone: ZONE, dateStyle: "long" });
const spans = new Intl.DateTimeFormat(locale, {
  timeZone: ZONE,
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
});
const fields = new Intl.DateTimeFormat("en-GB", {
  timeZone: ZONE,
  year: "numeric",
  month: "2-digit",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/**
 * @param {Key} key
 * @param {Record<string, string | number>} [values] what stands for `{name}` in the text
 */
export function t(key, values = {}) {
  return catalogue[key].replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * A text that depends on a number: the catalogue has `<key>.one` and `<key>.other`.
 * @param {"search.found" | "history.times" | "verify.files"} key
 * @param {number} n
 * @param {Record<string, string | number>} [values]
 */
export function plural(key, n, values = {}) {
  const form = plurals.select(n) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { n, ...values });
}

/**
 * A text whose key is made of a word from the server; the word itself, if it is new to this page.
 * @param {string} kind
 * @param {string} said
 */
export function word(kind, said) {
  const key = `${kind}.${said}`;
  return key in catalogue ? catalogue[/** @type {Key} */ (key)] : said;
}

/** @param {string} key @returns {key is Key} */
export const has = (key) => key in catalogue;

/** Date and time to the second. @param {string} time */
export const moment = (time) => moments.format(new Date(time));

/** Time to the second. @param {string} time */
export const time = (time) => hours.format(new Date(time));

/** @param {string} time */
export const day = (time) => days.format(new Date(time));

/** A day, from one time to another. @param {string} from @param {string} to */
export const span = (from, to) => spans.formatRange(new Date(from), new Date(to));

/** @param {number} bytes */
export function size(bytes) {
  const units = ["kB", "MB", "GB", "TB"];
  let [value, unit] = [bytes / 1000, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value.toLocaleString(language, { maximumFractionDigits: value < 10 ? 1 : 0 })} ${units[unit]}`;
}

/** @param {number} percent */
export const percent = (percent) => (percent / 100).toLocaleString(language, { style: "percent", maximumFractionDigits: 0 });

/**
 * The beginning of a day of the counter's, wherever the person sits.
 * @param {string} date `2026-01-13`, as a date field gives it
 * @param {number} [later] so many days later
 */
export function beginOfDay(date, later = 0) {
  const [year = 0, month = 1, number = 1] = date.split("-").map(Number);
  const wanted = Date.UTC(year, month - 1, number + later);
  // An hour or two ahead of UTC: what the clock shows at the guess says how far the guess is off.
  const guess = wanted - 3_600_000;
  const shown = Object.fromEntries(fields.formatToParts(guess).map(({ type, value }) => [type, Number(value)]));
  const { year: y = 0, month: m = 1, day: d = 1, hour = 0, minute = 0, second = 0 } = shown;
  const off = Date.UTC(y, m - 1, d, hour, minute, second) - guess;
  return new Date(wanted - off).toISOString();
}
