//! Load test with latency percentiles against any OpenAI- or Ollama-compatible URL.
