{{- define "dotproxy.name" -}}
{{- if contains "dotproxy" .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-dotproxy" .Release.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "dotproxy.selector" -}}
app.kubernetes.io/name: dotproxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dotproxy.labels" -}}
{{ include "dotproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "dotproxy.options" -}}
port = 5353
http-listen = 0.0.0.0:9153
{{- range .Values.upstreams }}
upstream = {{ . }}
{{- end }}
{{- range $name, $value := .Values.options }}
{{- if kindIs "slice" $value }}
{{- range $value }}
{{ $name }} = {{ . }}
{{- end }}
{{- else if kindIs "bool" $value }}
{{- if $value }}
{{ $name }}
{{- end }}
{{- else }}
{{ $name }} = {{ $value }}
{{- end }}
{{- end }}
{{- end -}}
