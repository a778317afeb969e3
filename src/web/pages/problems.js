/** What the server refuses, in the reader's words. */

import { dateAndHour, has, listing, plural, roleName, t, word } from "./i18n.js";

/**
 * @param {import("./api.js").Problem} problem
 * @returns {string}
 */
export function wordsOf(problem) {
  const {
    attempts_left: attempts,
    opens_at: opens,
    seconds_left: seconds,
    missing,
    longest_hours: hours,
    reason,
  } = problem.body;
  switch (problem.slug) {
    case "wrong-code":
      if (attempts === 0) return t("code.locked");
      return sentences(t("code.wrong"), attempts !== undefined && plural("code.attempts", attempts));
    case "code-locked":
      return t("code.locked");
    case "too-early":
      return opens ? tooEarly(opens) : t("problem.wrong-phase");
    case "presence-too-short":
      return sentences(
        t("problem.presence-too-short"),
        seconds !== undefined && plural("problem.presence-too-short.seconds", seconds),
      );
    case "presence-missing":
      return sentences(
        t("problem.presence-missing"),
        missing && t("operator.presence.missing", { who: listing(missing.map(roleName)) }),
      );
    case "extension-too-long":
      return sentences(
        t("problem.extension-too-long"),
        hours !== undefined && t("problem.extension-too-long.longest", { n: hours }),
      );
    case "document-unfit":
      return sentences(t("problem.document-unfit"), reason !== undefined && word(`unfit.${reason}`, ""));
    default:
      return otherWords(problem);
  }
}

/** @param {string} opens when the room opens */
export const tooEarly = (opens) => t("welcome.tooEarly", { opens: dateAndHour(opens) });

/** @param {import("./api.js").Problem} problem */
function otherWords(problem) {
  const key = `problem.${problem.slug}`;
  if (has(key)) return t(key);
  return problem.status >= 500 ? t("problem.unavailable") : t("problem.other", { detail: problem.message });
}

/** @param {(string | false | undefined)[]} texts */
const sentences = (...texts) => texts.filter(Boolean).join(" ");
