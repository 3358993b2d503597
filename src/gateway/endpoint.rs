//! Which call a path and method are. Decides nothing about upstreams.

use http::Method;

use crate::wire::Protocol;

/// A call that generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
    /// `/api/chat`.
    OllamaChat,
    /// `/api/generate`.
    OllamaGenerate,
    /// `/generate` and `/generate_stream`.
    Plain,
}

impl Api {
    /// The dialect of its errors and streams.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Chat | Self::Completion => Protocol::OpenAi,
            Self::OllamaChat | Self::OllamaGenerate => Protocol::Ollama,
            Self::Plain => Protocol::Plain,
        }
    }

    /// The path at an Enginewright server that streams this API.
    pub const fn streaming_path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::Plain => "/generate_stream",
        }
    }

    /// Stable name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat_completions",
            Self::Completion => "completions",
            Self::OllamaChat => "ollama_chat",
            Self::OllamaGenerate => "ollama_generate",
            Self::Plain => "generate",
        }
    }

    /// Whether its streams are server-sent events (else: lines of JSON).
    pub const fn is_sse(self) -> bool {
        !matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Generates. The second field fixes streaming where the path decides it.
    Generate(Api, Option<bool>),
    /// Says something about the models served.
    Models(Metadata),
    /// `/`: for people, and for clients that look whether somebody is there.
    Root,
    /// `/healthz`: the process lives.
    Health,
    /// `/readyz`: requests are answered.
    Ready,
    /// `/metrics`.
    Metrics,
    /// Changes models, which nobody does through this endpoint.
    Management,
    /// The path exists, with this method.
    WrongMethod(&'static str),
    /// Nothing.
    Unknown,
}

/// A question about the models served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// `GET /v1/models`.
    List,
    /// `GET /v1/models/{id}`.
    One(String),
    /// `GET /api/tags`.
    Tags,
    /// `POST /api/show`.
    Show,
    /// `GET /api/ps`.
    Ps,
    /// `GET /api/version`.
    Version,
}

impl Endpoint {
    /// Classifies a request.
    pub fn of(method: &Method, path: &str) -> Self {
        if is_management(path) {
            return Self::Management;
        }
        let post = method == Method::POST;
        let get = method == Method::GET || method == Method::HEAD;
        let (endpoint, allowed) = match path {
            "/v1/chat/completions" => (Self::Generate(Api::Chat, None), "POST"),
            "/v1/completions" => (Self::Generate(Api::Completion, None), "POST"),
            "/api/chat" => (Self::Generate(Api::OllamaChat, None), "POST"),
            "/api/generate" => (Self::Generate(Api::OllamaGenerate, None), "POST"),
            "/generate" => (Self::Generate(Api::Plain, Some(false)), "POST"),
            "/generate_stream" => (Self::Generate(Api::Plain, Some(true)), "POST"),
            "/api/show" => (Self::Models(Metadata::Show), "POST"),
            "/api/tags" => (Self::Models(Metadata::Tags), "GET"),
            "/api/ps" => (Self::Models(Metadata::Ps), "GET"),
            "/api/version" => (Self::Models(Metadata::Version), "GET"),
            "/v1/models" => (Self::Models(Metadata::List), "GET"),
            "/" => (Self::Root, "GET"),
            "/healthz" => (Self::Health, "GET"),
            "/readyz" => (Self::Ready, "GET"),
            "/metrics" => (Self::Metrics, "GET"),
            _ => match path.strip_prefix("/v1/models/") {
                Some(id) if !id.is_empty() => (Self::Models(Metadata::One(id.to_owned())), "GET"),
                _ => return Self::Unknown,
            },
        };
        match allowed {
            "POST" if !post => Self::WrongMethod("POST"),
            "GET" if !get => Self::WrongMethod("GET"),
            _ => endpoint,
        }
    }
}

/// Ollama's calls that change models, whatever the method, and anything below them.
fn is_management(path: &str) -> bool {
    [
        "/api/pull",
        "/api/push",
        "/api/create",
        "/api/copy",
        "/api/delete",
        "/api/blobs",
    ]
    .iter()
    .any(|managed| {
        path.strip_prefix(managed)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn management_calls_are_known_with_any_method_and_below() {
        for path in [
            "/api/pull",
            "/api/blobs/sha256:00",
            "/api/delete",
            "/api/create/",
        ] {
            for method in [Method::POST, Method::DELETE, Method::HEAD, Method::PUT] {
                assert_eq!(
                    Endpoint::of(&method, path),
                    Endpoint::Management,
                    "{method} {path}"
                );
            }
        }
        assert_eq!(Endpoint::of(&Method::GET, "/api/pulled"), Endpoint::Unknown);
    }

    #[test]
    fn a_wrong_method_names_the_right_one() {
        assert_eq!(
            Endpoint::of(&Method::GET, "/api/chat"),
            Endpoint::WrongMethod("POST")
        );
        assert_eq!(
            Endpoint::of(&Method::POST, "/v1/models"),
            Endpoint::WrongMethod("GET")
        );
        assert_eq!(Endpoint::of(&Method::GET, "/v1/models/"), Endpoint::Unknown);
    }

    #[test]
    fn only_generate_fixes_streaming_by_its_path() {
        let of = |path| Endpoint::of(&Method::POST, path);
        assert_eq!(of("/generate"), Endpoint::Generate(Api::Plain, Some(false)));
        assert_eq!(
            of("/generate_stream"),
            Endpoint::Generate(Api::Plain, Some(true))
        );
        assert_eq!(
            of("/v1/chat/completions"),
            Endpoint::Generate(Api::Chat, None)
        );
    }
}
