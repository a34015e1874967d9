{{/* The name of the program, in labels. */}}
{{- define "dotproxy.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}

{{/* The name of the resources. */}}
{{- define "dotproxy.fullname" -}}
{{- $name := include "dotproxy.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "dotproxy.selector" -}}
app.kubernetes.io/name: {{ include "dotproxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dotproxy.labels" -}}
{{ include "dotproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "dotproxy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "dotproxy.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The smallest number of pods. */}}
{{- define "dotproxy.replicasMin" -}}
{{ ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled | int64 }}
{{- end -}}

{{/*
A scalar as the program reads it. Helm holds numbers of a values file as floating-point numbers and
would print 33554432 as 3.3554432e+07; JSON has the digits.
*/}}
{{- define "dotproxy.scalar" -}}
{{- if kindIs "string" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end -}}

{{/* The options of the program: the content of its options file. */}}
{{- define "dotproxy.options" -}}
port = {{ .Values.containerPorts.dns | int64 }}
http-listen = :{{ .Values.containerPorts.http | int64 }}
{{- range .Values.upstreams }}
upstream = {{ . }}
{{- end }}
{{- if .Values.tls.secretName }}
{{- range .Values.tls.addresses }}
tls-listen = {{ ternary (printf "[%s]" .) . (contains ":" .) }}:{{ $.Values.containerPorts.tls | int64 }}
{{- end }}
{{- if .Values.tls.https }}
{{- range .Values.tls.addresses }}
https-listen = {{ ternary (printf "[%s]" .) . (contains ":" .) }}:{{ $.Values.containerPorts.https | int64 }}
{{- end }}
{{- end }}
tls-cert = /etc/dotproxy-tls/tls.crt
tls-key = /etc/dotproxy-tls/tls.key
{{- if .Values.tls.clientCertificates }}
tls-client-ca = /etc/dotproxy-tls/ca.crt
{{- end }}
{{- end }}
{{- if not (hasKey .Values.options "memory-limit") }}
memory-limit = {{ (include "dotproxy.memory" . | fromJson).process | int64 }}
{{- end }}
{{- range $name, $value := .Values.options }}
{{- if kindIs "slice" $value }}
{{- range $value }}
{{ $name }} = {{ include "dotproxy.scalar" . }}
{{- end }}
{{- else if and (eq $name "dnssec") (kindIs "bool" $value) }}
{{ $name }} = {{ ternary "on" "off" $value }}
{{- else if kindIs "bool" $value }}
{{- if $value }}
{{ $name }}
{{- end }}
{{- else if not (kindIs "invalid" $value) }}
{{ $name }} = {{ include "dotproxy.scalar" $value }}
{{- end }}
{{- end }}
{{- end -}}
