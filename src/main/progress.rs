//! How far long work is: a bar on a terminal, lines with a percentage elsewhere, objects for programs.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::complain;

/// Work on fewer bytes is done before anybody could read a line about it.
const WORTH_A_LINE: u64 = 32 << 20;
/// Percent between two lines.
const STEP: u64 = 10;

/// Shows progress on standard error, so that standard output holds results alone.
pub(crate) struct Progress {
    form: Form,
    /// What is done, for people: «checked».
    word: &'static str,
    shown: u64,
}

enum Form {
    Bar(ProgressBar),
    Lines,
    Objects,
}

impl Progress {
    pub(crate) fn new(word: &'static str, json: bool) -> Self {
        let form = if json {
            Form::Objects
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "{msg} [{wide_bar}] {percent:>3} % of {total_bytes}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(word);
            Form::Bar(bar)
        } else {
            Form::Lines
        };
        Self { form, word, shown: 0 }
    }

    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
        match &self.form {
            Form::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            Form::Lines | Form::Objects if total < WORTH_A_LINE || percent < self.shown + STEP => {}
            Form::Lines => {
                self.shown = percent - percent % STEP;
                complain(&format!("{} {} % of {} MB", self.word, self.shown, total / 1_000_000));
            }
            Form::Objects => {
                self.shown = percent - percent % STEP;
                complain(&serde_json::json!({"progress_percent": self.shown}).to_string());
            }
        }
    }

    /// Takes the bar away again.
    pub(crate) fn clear(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}
