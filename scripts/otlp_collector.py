#!/usr/bin/env python3
"""A collector of traces that accepts only requests that conform to the published schema.

  scripts/otlp_collector.py PORT FILE

opentelemetry-proto, the published schema, parses every request, and the collector checks the rules
of OTLP that a schema cannot express. A valid request is answered with 200 and appended to FILE, a
line of JSON for each span; an invalid one is answered with 400 and appended to FILE as an error.

With STATUS=503 in the environment, the first two requests are rejected with that status, so that
the client repeats them.
"""

import base64
import http.server
import json
import os
import re
import sys
import uuid

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

ID_LENS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}


def with_ids_as_octets(value):
    """Converts ids: OTLP's JSON has hexadecimal ids, protobuf's JSON has base64."""
    if isinstance(value, list):
        return [with_ids_as_octets(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if key in ID_LENS:
            assert re.fullmatch(f"[0-9a-f]{{{ID_LENS[key]}}}", item), f"{key} is {item!r}"
            assert set(item) != {"0"}, f"{key} is all zeroes"
            item = base64.b64encode(bytes.fromhex(item)).decode()
        result[key] = with_ids_as_octets(item)
    return result


def plain(value):
    """Returns the value of an attribute."""
    return getattr(value, value.WhichOneof("value"))


def check(request, headers):
    """Returns the spans of a request as plain objects; fails if the request is invalid."""
    assert headers["Content-Type"] == "application/json", headers["Content-Type"]
    assert headers["Host"], "no Host"
    document = with_ids_as_octets(json.loads(request))
    message = json_format.ParseDict(document, trace_service_pb2.ExportTraceServiceRequest())
    (resource_spans,) = message.resource_spans
    resource = {item.key: plain(item.value) for item in resource_spans.resource.attributes}
    assert resource["service.name"] == os.environ.get("OTEL_SERVICE_NAME", "dotproxy"), resource
    assert resource.get("deployment.environment.name", "a test") == "a test", resource
    assert uuid.UUID(resource["service.instance.id"]).version == 4, resource
    (scope_spans,) = resource_spans.scope_spans
    assert scope_spans.scope.name == "dotproxy"
    spans = [of_span(span) for span in scope_spans.spans]
    assert spans, "no spans"
    queries = {span["span"]: span for span in spans if span["parent"] is None}
    for span in spans:
        assert span["from"] <= span["until"], span
        if span["parent"] is not None:
            query = queries[span["parent"]]
            assert span["trace"] == query["trace"], span
            is_within = query["from"] <= span["from"] and span["until"] <= query["until"]
            assert is_within, (span, query)
    assert len({span["span"] for span in spans}) == len(spans), "an id came twice"
    return spans


def of_span(span):
    keys = [item.key for item in span.attributes]
    assert len(set(keys)) == len(keys), keys
    assert span.name and span.kind != trace_pb2.Span.SPAN_KIND_UNSPECIFIED, span
    # 2020 to 2100.
    assert 1577836800e9 < span.start_time_unix_nano < 4102444800e9, span.start_time_unix_nano
    return {
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex() or None,
        "name": span.name,
        "kind": trace_pb2.Span.SpanKind.Name(span.kind),
        "from": span.start_time_unix_nano,
        "until": span.end_time_unix_nano,
        "is_error": span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        "attributes": {item.key: plain(item.value) for item in span.attributes},
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    refusals = 2 if os.environ.get("STATUS") else 0

    def do_POST(self):
        request = self.rfile.read(int(self.headers["Content-Length"]))
        status, lines = 200, []
        if self.path != "/v1/traces":
            status, lines = 404, [{"error": self.path}]
        elif Handler.refusals > 0:
            Handler.refusals -= 1
            status = int(os.environ["STATUS"])
        else:
            try:
                lines = check(request, self.headers)
            except Exception as error:  # whatever is wrong is to be read in the file
                status, lines = 400, [{"error": repr(error)}]
        with open(sys.argv[2], "a") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)
        body = b'{"partialSuccess":{}}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    open(sys.argv[2], "w").close()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
