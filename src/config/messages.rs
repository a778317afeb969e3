//! Sections `webhooks` and `sms`: what leaves the node.

use serde::Deserialize;

use super::Reader;
use crate::notify::sms::Authorization;
use crate::notify::webhook::MOST_SECRETS;
use crate::notify::{
    ContentType, Endpoint, GatewayConfig, Language, SmsConfig, Template, WebhookConfig, WebhookSecret,
};

/// Secrets as a list, or as one text: environments write that more easily.
#[derive(Deserialize)]
#[serde(untagged)]
enum Secrets {
    List(Vec<String>),
    Text(String),
}

impl Reader<'_> {
    /// `Some(None)`: no webhooks.
    #[expect(clippy::option_option, reason = "the outer one says whether the section is right, as with all sections")]
    pub(super) fn webhooks(&mut self) -> Option<Option<WebhookConfig>> {
        let allow_plain_http = self.flag("webhooks.allow_plain_http");
        let url = self.read("webhooks.url", &format!("empty, or {}", Endpoint::ALLOWED), |text: String| {
            if text.is_empty() { Some(None) } else { Endpoint::parse(&text, allow_plain_http?).map(Some) }
        });
        let secrets = self.secrets();
        let (Some(url), secrets) = (url?, secrets?) else { return Some(None) };
        if secrets.is_empty() {
            self.problem("webhooks.secrets", "one secret at least, as webhooks.url is set: e.g. \"whsec_\" and the output of `openssl rand -base64 32`");
            return None;
        }
        Some(Some(WebhookConfig { url, secrets }))
    }

    pub(super) fn sms(&mut self) -> Option<SmsConfig> {
        let language = self.read("sms.language", "\"it\", \"de\" or \"en\"", |word: String| Language::of_word(&word));
        let by_gateway = self.read("sms.mode", "\"return\" or \"gateway\"", |mode: String| match mode.as_str() {
            "return" => Some(false),
            "gateway" => Some(true),
            _ => None,
        });
        let gateway = if by_gateway? { Some(self.gateway()?) } else { None };
        Some(SmsConfig { language: language?, gateway })
    }

    fn gateway(&mut self) -> Option<GatewayConfig> {
        let allow_plain_http = self.flag("sms.allow_plain_http");
        let url =
            self.read("sms.gateway_url", Endpoint::ALLOWED, |text: String| Endpoint::parse(&text, allow_plain_http?));
        let kinds = ContentType::ALL.map(|kind| format!("\"{}\"", kind.name())).join(" or ");
        let kind = self.read("sms.gateway_content_type", &kinds, |name: String| ContentType::of_name(&name));
        let body = kind.and_then(|kind| self.template(kind));
        let allowed = "empty, or the header's value in ASCII, e.g. \"Bearer …\"";
        let authorization = self.read("sms.gateway_authorization", allowed, |text: String| {
            if text.is_empty() { Some(None) } else { Authorization::parse(&text).map(Some) }
        });
        Some(GatewayConfig { url: url?, body: body?, authorization: authorization? })
    }

    fn template(&mut self, kind: ContentType) -> Option<Template> {
        let key = "sms.gateway_body";
        let text = self.read(key, "a text", Some::<String>)?;
        let template = Template::parse(kind, &text);
        if let Err(error) = &template {
            let allowed = format!("a body of the type {} with {{phone}} and {{text}}: {error}", kind.name());
            self.problem(key, &allowed);
        }
        template.ok()
    }

    fn secrets(&mut self) -> Option<Vec<WebhookSecret>> {
        let key = "webhooks.secrets";
        let secrets = self.read(key, "a list of secrets, each \"whsec_\" and base64", |given: Secrets| {
            let list = match given {
                Secrets::List(list) => list,
                Secrets::Text(text) => {
                    text.split([' ', ',']).filter(|secret| !secret.is_empty()).map(str::to_owned).collect()
                }
            };
            Some(list)
        })?;
        if secrets.len() > MOST_SECRETS {
            self.problem(key, &format!("at most {MOST_SECRETS} secrets"));
            return None;
        }
        let parsed: Result<Vec<_>, _> = secrets.iter().map(|secret| WebhookSecret::parse(secret)).collect();
        if let Err(error) = &parsed {
            self.problem(key, &format!("a list of secrets, each \"whsec_\" and base64: {error}"));
        }
        parsed.ok()
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.read(key, "true or false", Some::<bool>)
    }
}

#[cfg(test)]
mod tests {
    use figment::value::Value;

    use super::super::*;
    use super::Language;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(preset: &[(&str, Value)]) -> Result<Config, Problems> {
        Sources::with_preset(preset).read()
    }

    fn problems(preset: &[(&str, Value)]) -> String {
        read(preset).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    fn gateway(more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
        let mut preset: Vec<(&str, Value)> =
            vec![("sms.mode", "gateway".into()), ("sms.gateway_url", "https://sms.example.it/send".into())];
        preset.extend(more.iter().cloned());
        preset
    }

    #[test]
    fn by_default_nothing_leaves_the_node() {
        let config = read(&[]).unwrap();
        assert!(config.webhooks.is_none());
        assert!(config.sms.gateway.is_none());
        assert_eq!(config.sms.language, Language::It);
    }

    #[test]
    fn webhooks_need_an_address_and_a_secret() {
        let url = ("webhooks.url", Value::from("https://booking.example.it/hooks"));
        let config = read(&[url.clone(), ("webhooks.secrets", vec![SECRET, SECRET].into())]).unwrap();
        assert_eq!(config.webhooks.unwrap().secrets.len(), 2);
        let text = problems(std::slice::from_ref(&url));
        assert!(text.starts_with("webhooks.secrets = [] ") && text.contains("one secret at least"), "{text}");
        let text = problems(&[url, ("webhooks.secrets", vec!["whsec_aGk="].into())]);
        assert!(text.contains("a secret has 24 to 64 bytes, this one 2"), "{text}");
    }

    #[test]
    fn secrets_may_be_one_text_as_environments_write_it() {
        let url = ("webhooks.url", Value::from("https://booking.example.it/hooks"));
        let config = read(&[url, ("webhooks.secrets", format!("{SECRET} {SECRET}").into())]).unwrap();
        assert_eq!(config.webhooks.unwrap().secrets.len(), 2);
    }

    #[test]
    fn plain_http_is_named_as_what_it_is() {
        let preset = [("webhooks.url", "http://booking.example.it/".into()), ("webhooks.secrets", vec![SECRET].into())];
        let text = problems(&preset);
        assert!(text.starts_with("webhooks.url = ") && text.contains("allow_plain_http = true"), "{text}");
        let [url, secrets] = preset;
        assert!(read(&[url, secrets, ("webhooks.allow_plain_http", true.into())]).is_ok());
    }

    #[test]
    fn the_gateway_takes_json_and_forms_and_says_what_is_wrong_with_them() {
        assert!(read(&gateway(&[])).unwrap().sms.gateway.is_some(), "the body in the defaults is right");
        let form = [
            ("sms.gateway_content_type", "application/x-www-form-urlencoded".into()),
            ("sms.gateway_body", "to={phone}&text={text}".into()),
            ("sms.gateway_authorization", "Bearer key".into()),
        ];
        assert!(read(&gateway(&form)).unwrap().sms.gateway.unwrap().authorization.is_some());
        let text = problems(&gateway(&[
            ("sms.language", "fr".into()),
            ("sms.gateway_body", "password=hunter2&to={phone}".into()),
            ("sms.gateway_authorization", "Bearer\nhunter2".into()),
        ]));
        for expected in ["\"it\", \"de\" or \"en\"", "it is not JSON", "sms.gateway_authorization = \"…\""] {
            assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
        let text = problems(&[("sms.mode", "gateway".into())]);
        assert!(text.contains("sms.gateway_url"), "{text}");
    }

    #[test]
    fn secrets_of_messages_are_never_shown() {
        let sources = Sources::with_preset(&gateway(&[
            ("webhooks.url", "https://booking.example.it/hooks?key=hunter2".into()),
            ("webhooks.secrets", vec![SECRET, "whsec_hunter2"].into()),
            ("sms.gateway_body", "password=hunter2&to={phone}&text={text}".into()),
            ("sms.gateway_authorization", "Bearer hunter2".into()),
            ("sms.gateway_url", "https://me:hunter2@sms.example.it/send".into()),
        ]));
        for text in [sources.show().unwrap(), sources.read().unwrap_err().to_string()] {
            assert!(!text.contains("hunter2") && !text.contains("MfKQ"), "{text}");
        }
        let shown = sources.show().unwrap();
        assert!(shown.contains("url = \"https://booking.example.it/hooks?…\"  #"), "{shown}");
        assert!(shown.contains("secrets = \"…\"  #"), "{shown}");
        let defaults = Sources::new(None).show().unwrap();
        assert!(defaults.contains("{phone}"), "the built-in body is no secret: {defaults}");
    }
}
