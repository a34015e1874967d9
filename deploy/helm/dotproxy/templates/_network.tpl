{{/*
The port of an address like 1.1.1.1, host:53, host@53, [::1]:53 or ::1, or the default port.
Argument: a list of the address and the default.
*/}}
{{- define "dotproxy.port" -}}
{{- $address := index . 0 -}}
{{- $port := "" -}}
{{- if contains "@" $address -}}
{{- $port = regexFind "@[0-9]+$" $address | trimPrefix "@" -}}
{{- else if or (contains "]" $address) (regexMatch "^[^:]*:[0-9]+$" $address) -}}
{{- $port = regexFind ":[0-9]+$" $address | trimPrefix ":" -}}
{{- end -}}
{{ $port | default (index . 1) }}
{{- end -}}

{{/*
The ports to which the options send, one a line: PORT/PROTOCOL. A reply over UDP that is too long is
requested again over TCP.
*/}}
{{- define "dotproxy.egress" -}}
{{- range .Values.upstreams }}
{{- $spec := index (splitList "," .) 0 }}
{{- $scheme := ternary (index (splitList "://" $spec) 0) "tls" (contains "://" $spec) | lower }}
{{- $address := index (splitList "/" (index (splitList "#" (last (splitList "://" $spec))) 0)) 0 }}
{{- $default := get (dict "tls" "853" "https" "443" "udp" "53" "tcp" "53") $scheme | default "853" }}
{{- $port := include "dotproxy.port" (list $address $default) }}
{{ $port }}/TCP
{{- if eq $scheme "udp" }}
{{ $port }}/UDP
{{- end }}
{{- end }}
{{- $bootstrap := .Values.options.bootstrap | default list }}
{{- range ternary $bootstrap (list $bootstrap) (kindIs "slice" $bootstrap) }}
{{- $port := include "dotproxy.port" (list . "53") }}
{{ $port }}/TCP
{{ $port }}/UDP
{{- end }}
{{- with .Values.options.otlp }}
{{ include "dotproxy.port" (list (index (splitList "/" (last (splitList "://" .))) 0) "4318") }}/TCP
{{- end }}
{{- with .Values.options.dnstap }}
{{- if hasPrefix "tcp:" . }}
{{ include "dotproxy.port" (list (trimPrefix "tcp:" .) "6000") }}/TCP
{{- end }}
{{- end }}
{{- end -}}
