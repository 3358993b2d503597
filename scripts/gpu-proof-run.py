#!/usr/bin/env python3
"""`enginewright run` on a machine with a GPU, driven as a user does, with times.

    gpu-proof-run.py PROGRAM OLLAMA MODEL FOLDER BACKEND [ARGUMENT OF run]...

One JSON line for each step, one that fails does not keep the later ones from being tried: the first answer (from
Ollama), the engine's way to serving while questions are asked all the time, a stream, SIGKILL to the engine in the
middle of a stream, the way back, the orderly end, a second start that builds nothing, SIGKILL to `run` itself, a
third start. Ends with 1 when a step has failed. Needs nothing but Python.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PORT = 18480
LIMIT = 150.0
SPEC = """apiVersion: enginewright.dev/v1alpha1
kind: InferenceEngine
metadata: {{ name: smollm2 }}
spec:
  model: {{ source: "file://{model}" }}
  engine: {{ maxInputTokens: 1536, maxOutputTokens: 512, slots: 4, precision: Fp16{policy} }}
  health: {{ probeInterval: 2s, soak: 10s }}
  fallback: {{ order: [Ollama], residency: Warm }}
  rollout: {{ backoff: {{ initial: 1s, max: 1m }}, drainTimeout: 5s }}
"""
QUESTION = "What is the capital of France?"
STORY = "Tell me a long story about a lighthouse keeper and the sea."


def chat(question, tokens, stream):
    """A request's connection and response."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=LIMIT)
    body = {
        "model": "smollm2", "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens, "temperature": 0, "stream": stream,
    }
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    return connection, connection.getresponse()


def ask(question, tokens):
    """The back end that answered, and the text; `None` while nobody does."""
    connection, response = chat(question, tokens, False)
    data = response.read()
    connection.close()
    if response.status != 200:
        return None, f"{response.status} {data[:200]!r}"
    text = json.loads(data)["choices"][0]["message"]["content"]
    return response.getheader("x-enginewright-backend"), text


class Asker(threading.Thread):
    """Asks without a pause until told to end; counts who answered and what failed."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.by, self.failed, self.longest, self.problems = {}, 0, 0.0, []

    def run(self):
        while not self.over.wait(0.05):
            begun = time.monotonic()
            try:
                backend, text = ask(QUESTION, 8)
            except (OSError, http.client.HTTPException) as error:
                backend, text = None, repr(error)
            self.longest = max(self.longest, time.monotonic() - begun)
            if backend is None:
                self.failed += 1
                self.problems = [*self.problems, text][-3:]
            else:
                self.by[backend] = self.by.get(backend, 0) + 1

    def end(self):
        self.over.set()
        self.join(LIMIT)
        return {"answered": self.by, "failed": self.failed, "longestSeconds": round(self.longest, 2), "problems": self.problems}


class Run:
    """A running `enginewright run`."""

    def __init__(self, arguments, folder, name):
        self.folder, self.state = folder, folder / "state"
        self.log = (folder / f"run-{name}.log").open("w")
        self.begun = time.monotonic()
        self.process = subprocess.Popen(arguments, stdout=self.log, stderr=subprocess.STDOUT)
        self.changes, self.last = [], None
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        """Notes every change of what serves, and why, with its time."""
        while self.process.poll() is None:
            self.note(self.report())
            time.sleep(0.02)

    def show(self):
        """What has changed since the last call."""
        changes, self.changes = self.changes, []
        print(json.dumps({"step": "changes", "changes": changes}), flush=True)

    def at(self):
        return round(time.monotonic() - self.begun, 2)

    def report(self):
        try:
            report = json.loads((self.state / "status.json").read_bytes())
        except (OSError, ValueError):
            return {}
        # What an earlier life wrote says nothing of this one.
        return report if report.get("pid") == self.process.pid else {}

    def note(self, report):
        status = report.get("status", {})
        ready = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), {})
        seen = [status.get("activeBackend"), ready.get("reason"), [f"{one['role']}:{one['state']}" for one in report.get("processes", [])]]
        if seen != self.last:
            self.last = seen
            self.changes.append([self.at(), *seen])

    def serves(self):
        return self.report().get("status", {}).get("activeBackend")

    def engine(self):
        for one in self.report().get("processes", []):
            if one["role"].startswith("engine") and one["state"] == "Ready" and one.get("pid"):
                return one["pid"]
        return None

    def first_answer(self):
        while self.at() < LIMIT:
            try:
                backend, text = ask(QUESTION, 24)
                if backend:
                    return backend, text
            except (OSError, http.client.HTTPException):
                pass
            if self.process.poll() is not None:
                raise RuntimeError(f"run ended: {self.process.returncode}")
            time.sleep(0.02)
        raise RuntimeError("nobody answers")

    def wait(self, backend, other_than=None):
        """Until `backend` serves, from another process than `other_than`."""
        begun = time.monotonic()
        while time.monotonic() - begun < LIMIT:
            if self.serves() == backend and self.engine() not in (None, other_than):
                return round(time.monotonic() - begun, 2)
            if self.process.poll() is not None:
                raise RuntimeError(f"run ended: {self.process.returncode}")
            time.sleep(0.02)
        raise RuntimeError(f"{backend} does not serve: {json.dumps(self.report().get('status', {}).get('conditions'))[:900]}")

    def stream(self, question, tokens, victim=None):
        begun = time.monotonic()
        connection, response = chat(question, tokens, True)
        found = {"began": response.getheader("x-enginewright-backend"), "status": response.status, "victim": victim}
        pieces, killed_at, gap, last = [], None, 0.0, None
        for line in response:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                found["done"] = True
                break
            chunk = json.loads(data)
            if "error" in chunk:
                raise RuntimeError(f"the stream has an error: {chunk['error']}")
            if resumed := chunk.get("enginewright", {}).get("resumed"):
                found["resumed"] = resumed
            choice = (chunk.get("choices") or [{}])[0]
            found["finish"] = choice.get("finish_reason") or found.get("finish")
            text = (choice.get("delta") or {}).get("content")
            if not text:
                continue
            now = time.monotonic()
            found.setdefault("firstSeconds", round(now - begun, 4))
            if killed_at and last:
                gap = max(gap, now - last)
            last = now
            pieces.append(text)
            if victim and killed_at is None and len(pieces) == 12:
                os.kill(victim, signal.SIGKILL)
                killed_at = len(pieces)
                found["killedAt"] = self.at()
        connection.close()
        found |= {"pieces": len(pieces), "seconds": round(time.monotonic() - begun, 3), "text": "".join(pieces)[:160]}
        if killed_at:
            found |= {"beforeKill": killed_at, "afterKill": "".join(pieces[killed_at:])[:160], "longestGapSeconds": round(gap, 3)}
        if not found.get("done"):
            raise RuntimeError(f"the stream ended without [DONE]: {found}")
        return found

    def processes(self):
        return {one["pid"] for one in self.report().get("processes", []) if one.get("pid")} | {self.process.pid}

    def end(self, how):
        mine = self.processes()
        begun = time.monotonic()
        self.process.send_signal(how)
        code = self.process.wait(60)
        while time.monotonic() - begun < 30:
            left = [pid for pid in mine if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]]
            if not left:
                break
            time.sleep(0.05)
        self.log.close()
        return {"exit": code, "seconds": round(time.monotonic() - begun, 2), "left": left}


def demand(condition, what):
    if not condition:
        raise RuntimeError(what)


def builds(state):
    """Every bundle with the time it was written at."""
    return sorted((str(path.parent.name), path.stat().st_mtime_ns) for path in state.glob("revisions/*/engine/*/manifest.json"))


class Steps:
    def __init__(self):
        self.failed = []

    def step(self, name, do):
        begun = time.monotonic()
        try:
            found = do()
        except Exception as error:  # one step must not keep the others from being tried
            self.failed.append(name)
            found = {"failed": f"{type(error).__name__}: {error}"[:1500]}
        print(json.dumps({"step": name, "took": round(time.monotonic() - begun, 2), **found}), flush=True)


def first_life(steps, start, backend):
    run = start("first")

    def answer():
        by, text = run.first_answer()
        demand(by == "Ollama", f"the first answer came from {by}")
        return {"backend": by, "at": run.at(), "text": text[:80]}

    def promotion():
        asker = Asker()
        asker.start()
        try:
            run.wait(backend)
        finally:
            asked = asker.end()
            run.show()
        demand(not asked["failed"], f"questions were not answered: {asked}")
        return {"at": run.at(), **asked, "measured": run.report()["status"].get("measured")}

    def plain():
        found = run.stream(QUESTION, 48)
        demand(found["began"] == backend and "resumed" not in found, f"{found}")
        return found

    def killed():
        found = run.stream(STORY, 400, run.engine())
        demand(found["began"] == backend and found.get("resumed") and found["afterKill"], f"{found}")
        steps.victim = found["victim"]
        return found

    def back():
        asker = Asker()
        asker.start()
        try:
            waited = run.wait(backend, steps.victim)
        finally:
            asked = asker.end()
            run.show()
        demand(not asked["failed"], f"questions were not answered: {asked}")
        again = run.stream(QUESTION, 48)
        demand(again["began"] == backend, f"{again}")
        return {"servingAt": run.at(), "waited": waited, **asked, "again": again}

    def end():
        steps.builds = builds(run.state)
        found = run.end(signal.SIGTERM)
        demand(found["exit"] == 0 and not found["left"], f"{found}")
        return found

    for name, do in [("first answer", answer), ("promotion", promotion), ("stream", plain), ("killed", killed), ("promoted back", back), ("end", end)]:
        steps.step(name, do)


def next_life(steps, start, backend, name, how):
    run = start(name)

    def serving():
        by, _ = run.first_answer()
        first = run.at()
        run.wait(backend)
        at, now = run.at(), builds(run.state)
        run.show()
        demand(now == steps.builds, f"it was built again: {steps.builds} {now}")
        return {"firstAnswerAt": first, "from": by, "servingAt": at, "bundles": len(now)}

    def end():
        found = run.end(how)
        demand(not found["left"], f"{found}")
        return found

    steps.step(f"{name} start", serving)
    steps.step(f"{name} end", end)


def main():
    program, ollama, model, folder, backend, *more = sys.argv[1:]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "engine.yaml"
    policy = ", policy: Never" if backend == "Cpu" else ""
    file.write_text(SPEC.format(model=Path(model).resolve(), policy=policy))
    arguments = [program, "run", "-f", file, "--listen", f"127.0.0.1:{PORT}", "--ollama", ollama, "--state-dir", folder / "state", *more]
    steps = Steps()
    steps.victim, steps.builds = None, []

    def start(name):
        return Run([str(one) for one in arguments], folder, name)

    first_life(steps, start, backend)
    next_life(steps, start, backend, "second", signal.SIGKILL)
    next_life(steps, start, backend, "third", signal.SIGTERM)
    print(json.dumps({"step": "run", "failed": steps.failed}), flush=True)
    sys.exit(1 if steps.failed else 0)


main()
