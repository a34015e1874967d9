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
      "tls-client-ca" "tls.clientCertificates"
      "user" "podSecurityContext.runAsUser" -}}
{{- range $name, $_ := .Values.options -}}
{{- if hasKey $owned $name -}}
{{- fail (printf "options.%s: the chart sets this option: use the value %s" $name (get $owned $name)) -}}
{{- end -}}
{{- end -}}
{{- include "dotproxy.validateValues" . -}}
{{- include "dotproxy.validatePorts" . -}}
{{- include "dotproxy.validatePods" . -}}
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
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .)) (get $.Values.options "ca-file") -}}
{{- $_ := set $found "folder" . -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "options.ca-file: %q: no volume has this file: use existingSecret, whose entries are in /etc/dotproxy-secret, or extraVolumes and extraVolumeMounts" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails on options and upstreams that the program refuses. */}}
{{- define "dotproxy.validateValues" -}}
{{- $setting := "^(domain=.+|pin-sha256=.+|pin-only|pin-report|client-cert=.+|client-key=.+|dnssec)$" -}}
{{- if not .Values.upstreams -}}
{{- fail "upstreams: expected one or more upstreams, like 9.9.9.9@853#dns.quad9.net" -}}
{{- end -}}
{{- range $upstream := .Values.upstreams -}}
{{- if not (regexMatch "^\\S+$" $upstream) -}}
{{- fail (printf "upstreams: %q: expected an upstream without spaces, like 9.9.9.9@853#dns.quad9.net" $upstream) -}}
{{- end -}}
{{- range rest (splitList "," $upstream) -}}
{{- if not (regexMatch $setting .) -}}
{{- fail (printf "upstreams: %q: expected domain=, pin-sha256=, pin-only, pin-report, client-cert=, client-key= or dnssec after a comma, not %q" $upstream .) -}}
{{- end -}}
{{- end -}}
{{- $authority := index (splitList "#" (last (splitList "://" (index (splitList "," $upstream) 0)))) 0 -}}
{{- $port := include "dotproxy.port" (list $authority "853") | int64 -}}
{{- if or (lt $port 1) (gt $port 65535) -}}
{{- fail (printf "upstreams: %q: expected a port from 1 to 65535" $upstream) -}}
{{- end -}}
{{- $host := regexReplaceAll "^([^:@]*)[:@][0-9]+$" $authority "${1}" -}}
{{- if and (regexMatch "^[^:]*[a-zA-Z][^:]*$" $host) (not $.Values.options.bootstrap) -}}
{{- fail (printf "upstreams: %q: a host name needs options.bootstrap, a plain DNS server that resolves it, like 10.96.0.10" $upstream) -}}
{{- end -}}
{{- end -}}
{{- $ip := "([0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[?[0-9a-fA-F]*:[0-9a-fA-F:.]+(%[^\\]]+)?\\]?)" -}}
{{- range $name := list "allow" "deny" "bootstrap" -}}
{{- $given := get $.Values.options $name | default list -}}
{{- range ternary $given (list $given) (kindIs "slice" $given) -}}
{{- $isPeer := eq $name "bootstrap" -}}
{{- if not (regexMatch (printf "^%s%s$" $ip (ternary "([:@][0-9]+)?" "(/[0-9]{1,3})?" $isPeer)) .) -}}
{{- fail (printf "options.%s: %q: expected %s" $name . (ternary "an IP address like 10.96.0.10" "a network like 10.0.0.0/8, or an address" $isPeer)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $year := 31536000000 -}}
{{- $ranges := dict "timeout" (list 100 3600000) "reload-interval" (list 0 $year) "serve-stale" (list 0 $year)
      "cache-min-ttl" (list 0 $year) "cache-max-ttl" (list 0 $year) "cache-max-negative-ttl" (list 0 $year) -}}
{{- range $name, $range := $ranges -}}
{{- if hasKey $.Values.options $name -}}
{{- $text := include "dotproxy.scalar" (get $.Values.options $name) | lower -}}
{{- $factors := dict "ms" 1 "" 1000 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $milliseconds := -1 -}}
{{- if regexMatch "^[0-9]+(ms|s|m|h|d)?$" $text -}}
{{- $milliseconds = mul (regexFind "^[0-9]+" $text | int64) (get $factors (regexFind "[a-z]+$" $text)) -}}
{{- end -}}
{{- if or (lt $milliseconds (index $range 0 | int64)) (gt $milliseconds (index $range 1 | int64)) -}}
{{- fail (printf "options.%s: %q: expected a duration %s, like 500ms or 5 (seconds)" $name $text (ternary "from 100ms to 1h" "up to 365d" (eq $name "timeout"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails on ports that the pods cannot open. */}}
{{- define "dotproxy.validatePorts" -}}
{{- $ports := dict -}}
{{- range $name, $port := .Values.containerPorts -}}
{{- if or (ne $name "tls") $.Values.tls.secretName -}}
{{- $port = $port | int64 -}}
{{- if and (lt $port 1024) (not $.Values.podSecurityContext.sysctls) -}}
{{- fail (printf "containerPorts.%s: %d: expected a port from 1024, since the pods have no privilege; the Service has the ports 53 and 853" $name $port) -}}
{{- end -}}
{{- if hasKey $ports (toString $port) -}}
{{- fail (printf "containerPorts.%s: %d: containerPorts.%s has the same port: choose another one" $name $port (get $ports (toString $port))) -}}
{{- end -}}
{{- $_ := set $ports (toString $port) $name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails on values that Kubernetes refuses, or that have no effect. */}}
{{- define "dotproxy.validatePods" -}}
{{- range $name, $secret := dict "tls.secretName" .Values.tls.secretName "existingSecret" .Values.existingSecret -}}
{{- if not (regexMatch "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$" $secret) -}}
{{- fail (printf "%s: %q: expected the name of a Secret: lower-case letters, digits, - and ." $name $secret) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.clientCertificates (not .Values.tls.secretName) -}}
{{- fail "tls.clientCertificates: expected tls.secretName, the Secret with tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- with .Values.service.clusterIP -}}
{{- if not (regexMatch "^(None|[0-9]+(\\.[0-9]+){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]+)$" .) -}}
{{- fail (printf "service.clusterIP: %q: expected an IP address of the cluster's Services, or leave it empty" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (eq $.Values.kind "Deployment") (gt (int64 .minReplicas) (int64 .maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas: %d: expected at most autoscaling.maxReplicas (%d)" (int64 .minReplicas) (int64 .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
