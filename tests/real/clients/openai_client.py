"""The real `openai` package against an endpoint: python openai_client.py BASE_URL MODEL [KEY]

BASE_URL is without /v1. Exits with 1 when a check fails.
"""
import json
import sys

import openai

from checks import refused, run

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def models_are_listed(client, model):
    assert model in [entry.id for entry in client.models.list()]
    assert client.models.retrieve(model).object == "model"


def a_chat_is_answered(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=24
    )
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content, choice
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def a_stream_adds_up_to_the_answer(client, model):
    whole = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, seed=1, max_tokens=24
    )
    pieces, usage, reason = [], None, None
    with client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, seed=1, max_tokens=24,
        stream=True, stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                reason = choice.finish_reason or reason
    assert "".join(pieces) == whole.choices[0].message.content, pieces
    assert len(pieces) > 3
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert reason == whole.choices[0].finish_reason


def the_same_seed_gives_the_same_text(client, model):
    def ask(seed):
        return client.chat.completions.create(
            model=model, seed=seed, temperature=1, max_tokens=24,
            messages=[{"role": "user", "content": "Tell me a story."}],
        ).choices[0].message.content

    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in range(4)}) > 1


def a_stop_string_is_not_part_of_the_answer(client, model):
    answer = client.chat.completions.create(
        model=model, temperature=0, max_tokens=60, stop=["3"],
        messages=[{"role": "user", "content": "Count: 1, 2, 3, 4, 5"}],
    )
    assert "3" not in answer.choices[0].message.content, answer


def log_probabilities_are_given(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert len(content) >= 2
    for entry in content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[2].logprob
    text = b"".join(bytes(entry.bytes) for entry in content).decode("utf-8", "replace")
    assert text.startswith(answer.choices[0].message.content), (text, answer)


def a_required_tool_is_called_with_valid_arguments(client, model):
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        answer = client.chat.completions.create(
            model=model, temperature=1, seed=5, max_tokens=200, tools=[WEATHER], tool_choice=choice,
            messages=[{"role": "user", "content": "How is the weather in Paris?"}],
        )
        message = answer.choices[0].message
        assert answer.choices[0].finish_reason == "tool_calls", answer
        call = message.tool_calls[0]
        assert call.type == "function" and call.id
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def a_tool_call_can_be_streamed_and_answered(client, model):
    messages = [{"role": "user", "content": "How is the weather in Rome?"}]
    name, arguments, identity = "", "", ""
    for chunk in client.chat.completions.create(
        model=model, temperature=0, max_tokens=200, tools=[WEATHER], tool_choice="required",
        parallel_tool_calls=False, messages=messages, stream=True,
    ):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                identity = call.id or identity
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert name == "get_weather" and json.loads(arguments)["city"], (name, arguments)
    call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    messages.append({"role": "tool", "tool_call_id": identity, "content": "sunny, 25 degrees"})
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=[WEATHER], tool_choice="none", max_tokens=30
    )
    assert answer.choices[0].message.content


def json_mode_gives_a_json_object(client, model):
    answer = client.chat.completions.create(
        model=model, temperature=1, seed=2, max_tokens=400, response_format={"type": "json_object"},
        messages=[{"role": "user", "content": "Describe Paris as a short JSON object."}],
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


def a_schema_is_followed(client, model):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model, temperature=1, seed=3, max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
        messages=[{"role": "user", "content": "Invent a person."}],
    )
    person = json.loads(answer.choices[0].message.content)
    assert set(person) == {"name", "age"} and isinstance(person["age"], int), person


def a_completion_is_continued(client, model):
    answer = client.completions.create(model=model, prompt="The capital of France is", temperature=0, max_tokens=8)
    assert "Paris" in answer.choices[0].text, answer
    pieces = client.completions.create(
        model=model, prompt="The capital of France is", temperature=0, max_tokens=8, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text


def an_unknown_model_is_not_found(client, model):
    error = refused(openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", messages=QUESTION))
    assert error.code == "model_not_found" and model in str(error), error


def a_wrong_field_is_named(client, model):
    error = refused(
        openai.BadRequestError,
        lambda: client.chat.completions.create(model=model, messages=QUESTION, temperature=9),
    )
    assert error.param == "temperature", error
    error = refused(
        openai.BadRequestError,
        lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 50000}]),
    )
    assert error.code == "context_length_exceeded", error


CHECKS = [check for name, check in list(globals().items()) if callable(check) and getattr(check, "__module__", "") == "__main__"]

if __name__ == "__main__":
    base, model = sys.argv[1:3]
    key = sys.argv[3] if len(sys.argv) > 3 else "none"
    client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=300)
    run(CHECKS, client, model)
