#!/bin/sh
# Every API with curl. TANDEM_URL names another server, TANDEM_KEY a key if it asks for one.
set -eu
URL="${TANDEM_URL:-http://127.0.0.1:8080}"

ask() {
    path=$1
    shift
    echo "== $path"
    curl -sS --fail-with-body "$URL$path" -H "Authorization: Bearer ${TANDEM_KEY:-none}" "$@" | cut -c 1-200
    echo
}
post() { ask "$1" -H 'Content-Type: application/json' -d "$2"; }

# OpenAI's
post /v1/embeddings '{"input": "How warm is the sea?"}'
post /v1/embeddings '{"input": ["How warm is the sea?", "Water temperatures"], "dimensions": 4, "encoding_format": "base64"}'
post /v1/embeddings '{"input": "a long report", "priority": "background", "timeout_ms": 5000}'
ask /v1/models

# text-embeddings-inference's
post /embed '{"inputs": ["How warm is the sea?"], "truncate": true, "dimensions": 4}'
post /similarity '{"inputs": {"source_sentence": "How warm is the sea?", "sentences": ["Water temperatures", "Ships"]}}'
post /tokenize '{"inputs": "How warm is the sea?"}'
ask /info

# Cohere's: the model's own prompt for queries, where it has one
model=$(curl -sS "$URL/info" -H "Authorization: Bearer ${TANDEM_KEY:-none}" | sed 's/.*"model_id":"\([^"]*\)".*/\1/')
post /v2/embed "{\"model\": \"$model\", \"input_type\": \"search_query\", \"texts\": [\"How warm is the sea?\"]}"

ask /readyz
