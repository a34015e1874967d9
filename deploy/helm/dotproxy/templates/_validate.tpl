{{/*
Fails on values that the program would refuse in the pod, or that would have no effect.
*/}}
{{- define "dotproxy.validate" -}}
{{- $owned := dict
      "port" "containerPorts.dns"
      "listen" "containerPorts.dns"
      "upstream" "upstreams"
      "http-listen" "containerPorts.http"
      "tls-listen" "tls.addresses and containerPorts.tls"
      "tls-cert" "tls.secretName"
      "tls-key" "tls.secretName"
      "tls-client-ca" "tls.clientCertificates" -}}
{{- range $name, $_ := .Values.options -}}
{{- if hasKey $owned $name -}}
{{- fail (printf "options.%s: the chart sets this option: use the value %s" $name (get $owned $name)) -}}
{{- end -}}
{{- end -}}
{{- range .Values.upstreams -}}
{{- if and (regexMatch "^(udp|tcp)://" .) (not (contains ",domain=" .)) -}}
{{- fail (printf "upstreams: %q: expected domain= with udp:// and tcp://, which are not encrypted, like udp://10.0.0.53,domain=corp.example" .) -}}
{{- end -}}
{{- end -}}
{{- $folders := list -}}
{{- if .Values.existingSecret -}}
{{- $folders = append $folders "/etc/dotproxy-secret" -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $folders = append $folders "/etc/dotproxy-tls" -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- $folders = append $folders .mountPath -}}
{{- end -}}
{{- with get .Values.options "ca-file" -}}
{{- $found := dict -}}
{{- range $folders -}}
{{- if hasPrefix . (get $.Values.options "ca-file") -}}
{{- $_ := set $found "folder" . -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "options.ca-file: %q: no volume has this file: use existingSecret, whose entries are in /etc/dotproxy-secret, or extraVolumes and extraVolumeMounts" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
