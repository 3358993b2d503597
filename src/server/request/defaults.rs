//! What a model says beside its weights, put where a request says nothing: as Ollama does it, so that
//! an answer from here reads like one from there.
//!
//! Temperature and `top_p` of OpenAI's requests stay OpenAI's: Ollama holds it so, too.

use super::{Limit, Task};
use crate::model::modelfile::Modelfile;
use crate::wire::generate::Request;
use crate::wire::ollama::{self, ChatRequest, GenerateRequest, Options};
use crate::wire::openai::{
    ChatCompletionRequest, CompletionRequest, Content, Message, Role, Sampling, Stop,
};

/// Fills in a chat of OpenAI's.
pub fn chat(model: &Modelfile, request: &mut ChatCompletionRequest) {
    let first = request.messages.first().map(|message| message.role);
    if let Some(system) = system(model, first) {
        let message = Message {
            role: Role::System,
            content: Some(Content::Text(system)),
            name: None,
            tool_calls: None,
            tool_call_id: None,
        };
        request.messages.insert(0, message);
    }
    fill(&mut request.stop, stop(model));
    request.fill_sampling(sampling(model));
}

/// Fills in a completion of OpenAI's.
pub fn completion(model: &Modelfile, request: &mut CompletionRequest) {
    fill(&mut request.stop, stop(model));
    request.fill_sampling(sampling(model));
}

/// What a model says of the fields that OpenAI's API has no default of its own for.
fn sampling(model: &Modelfile) -> Sampling {
    Sampling {
        top_k: whole(model, "top_k"),
        min_p: fraction(model, "min_p"),
        repetition_penalty: fraction(model, "repeat_penalty"),
        seed: seed(model),
        ..Sampling::default()
    }
}

/// Fills in a chat of Ollama's.
pub fn ollama_chat(model: &Modelfile, request: &mut ChatRequest) {
    let messages = request.messages.get_or_insert_default();
    let first = messages.first().map(|message| message.role);
    if let Some(system) = system(model, first) {
        let message = ollama::Message {
            role: Role::System,
            content: system,
            thinking: None,
            images: None,
            tool_calls: None,
            tool_name: None,
        };
        messages.insert(0, message);
    }
    options(model, &mut request.options);
}

/// Fills in a prompt of Ollama's.
pub fn ollama_generate(model: &Modelfile, request: &mut GenerateRequest) {
    let says = request.system.as_ref().is_some_and(|text| !text.is_empty());
    if !says && !request.raw.unwrap_or(false) {
        fill(&mut request.system, model.system.clone());
    }
    options(model, &mut request.options);
}

/// Fills in a plain prompt.
pub fn plain(model: &Modelfile, request: &mut Request) {
    if !request.raw.unwrap_or(false) {
        fill(&mut request.system, model.system.clone());
    }
    fill(&mut request.temperature, fraction(model, "temperature"));
    fill(&mut request.top_p, fraction(model, "top_p"));
    fill(&mut request.seed, seed(model));
    fill(&mut request.stop, stop(model));
}

/// The most tokens of an answer that says nothing of it.
pub fn limit(model: &Modelfile, task: &mut Task) {
    if task.limit == Limit::Context
        && let Some(tokens) = whole(model, "num_predict").filter(|tokens| *tokens > 0)
    {
        task.limit = Limit::AtMost(tokens);
    }
}

fn options(model: &Modelfile, given: &mut Option<Options>) {
    let given = given.get_or_insert_default();
    fill(&mut given.temperature, fraction(model, "temperature"));
    fill(&mut given.top_k, integer(model, "top_k"));
    fill(&mut given.top_p, fraction(model, "top_p"));
    fill(&mut given.min_p, fraction(model, "min_p"));
    fill(&mut given.repeat_penalty, fraction(model, "repeat_penalty"));
    fill(&mut given.repeat_last_n, integer(model, "repeat_last_n"));
    fill(
        &mut given.presence_penalty,
        fraction(model, "presence_penalty"),
    );
    fill(
        &mut given.frequency_penalty,
        fraction(model, "frequency_penalty"),
    );
    fill(&mut given.seed, seed(model));
    fill(&mut given.stop, stop(model));
}

fn fill<T>(given: &mut Option<T>, own: Option<T>) {
    if given.is_none() {
        *given = own;
    }
}

/// The system message of a conversation that brings none; one that is empty loads the model only.
fn system(model: &Modelfile, first: Option<Role>) -> Option<String> {
    let brings_none = first.is_some_and(|role| !matches!(role, Role::System | Role::Developer));
    model.system.clone().filter(|_| brings_none)
}

fn stop(model: &Modelfile) -> Option<Stop> {
    let texts = model.stop();
    (!texts.is_empty()).then_some(Stop(texts))
}

#[allow(clippy::cast_possible_truncation)] // a sampling parameter has few digits
fn fraction(model: &Modelfile, name: &str) -> Option<f32> {
    model.number(name).map(|number| number as f32)
}

fn integer(model: &Modelfile, name: &str) -> Option<i64> {
    model.parameters.get(name)?.as_i64()
}

fn whole(model: &Modelfile, name: &str) -> Option<u32> {
    integer(model, name).and_then(|number| u32::try_from(number).ok())
}

fn seed(model: &Modelfile) -> Option<i64> {
    integer(model, "seed").filter(|seed| *seed != -1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model() -> Modelfile {
        serde_json::from_value(json!({
            "system": "Be brief.",
            "parameters": {
                "stop": ["<|end|>"], "temperature": 0.25, "top_k": 7, "repeat_penalty": 1.5,
                "num_predict": 9, "seed": 3,
            },
        }))
        .unwrap()
    }

    fn parsed<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_request_leaves_open_is_the_models() {
        let mut request: ChatRequest =
            parsed(json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}));
        ollama_chat(&model(), &mut request);
        let messages = request.messages.unwrap();
        assert_eq!(messages[0].content, "Be brief.");
        assert_eq!(messages.len(), 2);
        let options = request.options.unwrap();
        assert_eq!(options.temperature, Some(0.25));
        assert_eq!(options.top_k, Some(7));
        assert_eq!(options.stop.unwrap().0, ["<|end|>"]);

        let mut request: ChatCompletionRequest =
            parsed(json!({"messages": [{"role": "user", "content": "x"}]}));
        chat(&model(), &mut request);
        assert_eq!(request.messages.len(), 2);
        assert_eq!(request.temperature, None, "OpenAI's, as Ollama holds it");
        assert_eq!(request.repetition_penalty, Some(1.5));
        assert_eq!(request.stop.clone().unwrap().0, ["<|end|>"]);
        let mut task = super::super::openai::chat(request).unwrap();
        limit(&model(), &mut task);
        assert_eq!(task.limit, Limit::AtMost(9));

        let mut request: Request = parsed(json!({"prompt": "x"}));
        plain(&model(), &mut request);
        assert_eq!(request.system.as_deref(), Some("Be brief."));
    }

    #[test]
    fn what_a_request_says_wins() {
        let mut request: ChatRequest = parsed(json!({
            "model": "m", "options": {"temperature": 0.0, "stop": ["x"]},
            "messages": [{"role": "system", "content": "mine"}],
        }));
        ollama_chat(&model(), &mut request);
        assert_eq!(request.messages.unwrap().len(), 1);
        let options = request.options.unwrap();
        assert_eq!(options.temperature, Some(0.0));
        assert_eq!(options.stop.unwrap().0, ["x"]);
        let mut request: GenerateRequest =
            parsed(json!({"model": "m", "prompt": "p", "raw": true}));
        ollama_generate(&model(), &mut request);
        assert_eq!(request.system, None);
    }

    #[test]
    fn a_request_without_messages_still_only_loads_the_model() {
        let mut request: ChatRequest = parsed(json!({"model": "m"}));
        ollama_chat(&model(), &mut request);
        assert!(super::super::ollama::chat(request).unwrap().is_none());
    }
}
