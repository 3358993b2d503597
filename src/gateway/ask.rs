//! A client's request, read just far enough to route it, and the body that goes to an engine that
//! speaks the same API. What the fields mean is the engine's business; translation for the fallback
//! is [`super::wanted`]'s.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::endpoint::Api;
use crate::wire::openai::StreamOptions;
use crate::wire::{ApiError, ErrorKind, json};

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The API it came through.
    pub api: Api,
    /// Whether the client reads a stream.
    pub stream: bool,
    /// Whether a streaming OpenAI client wants the chunk with token counts.
    pub include_usage: bool,
    /// The body as it came.
    pub body: Bytes,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

impl Ask {
    /// Reads a body; `stream` where the path decides it.
    ///
    /// # Errors
    /// 400 when the body is not JSON or one of the few fields read has the wrong type; 404 for a
    /// model that is not served here.
    pub fn read(
        api: Api,
        stream: Option<bool>,
        body: Bytes,
        served_name: &str,
    ) -> Result<Self, ApiError> {
        // An array would be read as the fields in their order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            let problem = "the body must be a JSON object, not an array";
            return Err(ApiError::new(ErrorKind::InvalidRequest, problem));
        }
        let head: Head = json::parse(&body)?;
        if let Some(asked) = &head.model
            && !same_model(asked, served_name)
        {
            return Err(ApiError::unknown_model(asked, served_name));
        }
        let by_default = matches!(api, Api::OllamaChat | Api::OllamaGenerate);
        Ok(Self {
            api,
            stream: stream.or(head.stream).unwrap_or(by_default),
            include_usage: head
                .stream_options
                .and_then(|options| options.include_usage)
                == Some(true),
            body,
            model: head.model,
        })
    }

    /// The body for a server that speaks this API and calls the model `model`. It always streams:
    /// only a stream shows whether an engine still lives, and whole answers are put together here.
    pub fn for_same_api(&self, model: &str) -> Bytes {
        let renamed = self.model.as_deref().is_some_and(|asked| asked != model);
        if self.api == Api::Plain || (self.stream && !renamed) {
            return self.body.clone();
        }
        // It was read before, so it can be read again; were it not so, the engine would say why.
        let Ok(mut body) = serde_json::from_slice::<Value>(&self.body) else {
            return self.body.clone();
        };
        let Some(fields) = body.as_object_mut() else {
            return self.body.clone();
        };
        if renamed {
            fields.insert("model".into(), model.into());
        }
        if !self.stream {
            fields.insert("stream".into(), true.into());
            if matches!(self.api, Api::Chat | Api::Completion) {
                let usage = serde_json::json!({ "include_usage": true });
                fields.insert("stream_options".into(), usage);
            }
        }
        Bytes::from(body.to_string())
    }
}

/// Whether a client's model name is the one served: Ollama's clients may leave out or write the
/// default tag.
pub fn same_model(asked: &str, served: &str) -> bool {
    let bare = |name: &'_ str| name.strip_suffix(":latest").map_or(name.len(), str::len);
    asked[..bare(asked)] == served[..bare(served)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(api: Api, body: &Value) -> Result<Ask, ApiError> {
        Ask::read(api, None, Bytes::from(body.to_string()), "m")
    }

    #[test]
    fn a_streaming_request_is_passed_on_byte_for_byte() {
        let text = Bytes::from_static(b"{ \"stream\" :true, \"model\":\"m\",\"x\": 1.50 }");
        let ask = Ask::read(Api::Chat, None, text.clone(), "m").unwrap();
        assert!(ask.stream);
        assert_eq!(ask.for_same_api("m"), text);
    }

    #[test]
    fn a_whole_answer_is_asked_for_as_a_stream_with_usage() {
        let ask = read(Api::Chat, &json!({ "model": "m", "messages": [] })).unwrap();
        assert!(!ask.stream);
        let sent: Value = serde_json::from_slice(&ask.for_same_api("other")).unwrap();
        let expected = json!({ "model": "other", "messages": [], "stream": true,
            "stream_options": { "include_usage": true } });
        assert_eq!(sent, expected);
    }

    #[test]
    fn ollama_streams_unless_told_otherwise() {
        assert!(
            read(Api::OllamaChat, &json!({ "model": "m" }))
                .unwrap()
                .stream
        );
        assert!(
            !read(Api::OllamaChat, &json!({ "model": "m", "stream": false }))
                .unwrap()
                .stream
        );
    }

    #[test]
    fn another_model_is_404_and_the_default_tag_is_no_other() {
        let status = |name: &str| {
            read(Api::Chat, &json!({ "model": name })).map_err(|error| error.status().as_u16())
        };
        assert_eq!(status("x").unwrap_err(), 404);
        assert_eq!(status("../m").unwrap_err(), 404);
        assert!(status("m:latest").is_ok());
        assert!(same_model("m", "m:latest"));
        assert!(!same_model("m:8b", "m"));
    }

    #[test]
    fn a_wrong_type_is_named() {
        let error = read(Api::Chat, &json!({ "stream": "yes" })).unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.message.starts_with("stream"), "{}", error.message);
    }
}
