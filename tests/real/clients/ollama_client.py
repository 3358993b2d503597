"""The real `ollama` package against an endpoint: python ollama_client.py BASE_URL MODEL [KEY]

Exits with 1 when a check fails.
"""
import json
import sys

import ollama

from checks import refused, run

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
GREEDY = {"temperature": 0, "num_predict": 24, "seed": 1}


def get_weather(city: str) -> str:
    """
    The weather of a city.

    Args:
        city: The name of the city
    """
    return f"sunny in {city}"


def models_are_listed_and_shown(client, model):
    names = [entry.model for entry in client.list().models]
    assert any(name.removesuffix(":latest") == model.removesuffix(":latest") for name in names), names
    shown = client.show(model)
    assert shown.details.family == "llama" and "completion" in shown.capabilities, shown
    assert shown.template and shown.modelinfo["general.architecture"] == "llama"
    client.ps()


def a_chat_is_answered(client, model):
    answer = client.chat(model, messages=QUESTION, options=GREEDY)
    assert answer.message.role == "assistant" and answer.message.content, answer
    assert answer.done and answer.done_reason in ("stop", "length")
    assert answer.eval_count > 0 and answer.prompt_eval_count > 0 and answer.total_duration > 0


def a_stream_adds_up_to_the_answer(client, model):
    whole = client.chat(model, messages=QUESTION, options=GREEDY)
    lines = list(client.chat(model, messages=QUESTION, options=GREEDY, stream=True))
    assert "".join(line.message.content or "" for line in lines) == whole.message.content
    assert len(lines) > 3
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].eval_count == whole.eval_count


def a_prompt_is_answered(client, model):
    answer = client.generate(model, prompt="What is the capital of France?", options=GREEDY)
    assert answer.response, answer
    raw = client.generate(model, prompt="The capital of France is", raw=True, options=GREEDY)
    assert "Paris" in raw.response, raw
    pieces = client.generate(model, prompt="The capital of France is", raw=True, options=GREEDY, stream=True)
    assert "".join(piece.response for piece in pieces) == raw.response


def a_schema_is_followed(client, model):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    answer = client.chat(
        model, format=schema, options={"seed": 3, "num_predict": 200},
        messages=[{"role": "user", "content": "Invent a person. Answer in JSON."}],
    )
    person = json.loads(answer.message.content)
    assert isinstance(person["name"], str) and isinstance(person["age"], int), person


def json_mode_gives_a_json_object(client, model):
    answer = client.generate(
        model, prompt="Describe Paris as a short JSON object.", format="json", options={"seed": 2, "num_predict": 400}
    )
    if answer.done_reason == "stop":
        assert isinstance(json.loads(answer.response), dict)


def tools_are_accepted_and_what_was_called_is_understood(client, model):
    messages = [{"role": "user", "content": "How is the weather in Rome?"}]
    answer = client.chat(model, messages=messages, tools=[get_weather], options=GREEDY)
    assert answer.message.content or answer.message.tool_calls
    messages.append({"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]})
    messages.append({"role": "tool", "tool_name": "get_weather", "content": get_weather("Rome")})
    assert client.chat(model, messages=messages, tools=[get_weather], options=GREEDY).done


def loading_is_answered(client, model):
    assert client.generate(model, keep_alive="5m").done


def errors_are_ollamas(client, model):
    error = refused(ollama.ResponseError, lambda: client.chat("nobody", messages=QUESTION))
    assert error.status_code == 404 and "nobody" in error.error, error
    error = refused(ollama.ResponseError, lambda: client.chat(model, messages=QUESTION, think=True))
    assert error.status_code == 400 and "think" in error.error, error


def models_cannot_be_changed(client, model):
    for call in (lambda: client.pull("smollm2"), lambda: client.delete(model), lambda: client.copy(model, "x")):
        assert refused(ollama.ResponseError, call).status_code == 403


CHECKS = [
    check
    for name, check in list(globals().items())
    if callable(check) and getattr(check, "__module__", "") == "__main__" and check is not get_weather
]

if __name__ == "__main__":
    base, model = sys.argv[1:3]
    headers = {"Authorization": f"Bearer {sys.argv[3]}"} if len(sys.argv) > 3 else {}
    run(CHECKS, ollama.Client(host=base, headers=headers, timeout=300), model)
