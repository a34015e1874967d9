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
      "https-listen" "tls.https and containerPorts.https"
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
{{- if and (regexMatch "^(?i)(udp|tcp)://" .) (not (regexMatch ",domain(s-file)?=" .)) -}}
{{- fail (printf "upstreams: %q: expected domain= with udp:// and tcp://, which are not encrypted, like udp://10.0.0.53,domain=corp.example" .) -}}
{{- end -}}
{{- end -}}
{{- include "dotproxy.validateFiles" . -}}
{{- end -}}

{{/*
Fails on files that are in no volume, and on files to write on the root file system, which is
read-only.
*/}}
{{- define "dotproxy.validateFiles" -}}
{{- $read := list -}}
{{- $written := list "/dev/" -}}
{{- if .Values.existingSecret -}}
{{- $read = append $read "/etc/dotproxy-secret/" -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $read = append $read "/etc/dotproxy-tls/" -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- $mounted := ternary .mountPath (printf "%s/" (trimSuffix "/" .mountPath)) (hasKey . "subPath") -}}
{{- $read = append $read $mounted -}}
{{- if not .readOnly -}}
{{- $written = append $written $mounted -}}
{{- end -}}
{{- end -}}
{{- $files := list -}}
{{- range $name := list "allow-names" "block" "ca-file" "hosts" "trust-anchor" -}}
{{- $given := get $.Values.options $name | default list -}}
{{- range ternary $given (list $given) (kindIs "slice" $given) -}}
{{- $files = append $files (list (printf "options.%s" $name) .) -}}
{{- end -}}
{{- end -}}
{{- range .Values.upstreams -}}
{{- range rest (splitList "," .) -}}
{{- if regexMatch "^client-(cert|key)=" . -}}
{{- $parts := splitn "=" 2 . -}}
{{- $files = append $files (list (printf "upstreams: %s=" $parts._0) $parts._1) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $files -}}
{{- $name := index . 0 -}}
{{- $file := index . 1 -}}
{{- if not (include "dotproxy.isBelow" (list $file $read)) -}}
{{- fail (printf "%s: %q: no volume has this file: use existingSecret, whose entries are in /etc/dotproxy-secret, or extraVolumes and extraVolumeMounts" (trimSuffix ":" $name) $file) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "query-log" "clock-stamp" "cache-file" -}}
{{- $file := index (splitList "," (get $.Values.options $name | default "-")) 0 -}}
{{- if and (ne $file "-") $.Values.securityContext.readOnlyRootFilesystem (not (include "dotproxy.isBelow" (list $file $written))) -}}
{{- fail (printf "options.%s: %q: the root file system is read-only, and no volume that can be written has this file: add one with extraVolumes and extraVolumeMounts%s" $name $file (ternary ", or use - for standard output" "" (eq $name "query-log"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" if a file is one of these mounts or in one of them. Argument: a list of the file and the mounts. */}}
{{- define "dotproxy.isBelow" -}}
{{- $file := index . 0 -}}
{{- range index . 1 -}}
{{- if or (eq $file .) (and (hasSuffix "/" .) (hasPrefix . $file)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Milliseconds of a duration in the options of the program, like 500ms or 5 (seconds); -1 if the text
is no duration.
*/}}
{{- define "dotproxy.milliseconds" -}}
{{- $text := include "dotproxy.scalar" . | lower -}}
{{- $factors := dict "ms" 1 "" 1000 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- if regexMatch "^[0-9]+(ms|s|m|h|d)?$" $text -}}
{{ mul (regexFind "^[0-9]+" $text | int64) (get $factors (regexFind "[a-z]+$" $text)) }}
{{- else -}}-1{{- end -}}
{{- end -}}

{{/* Fails on an IPv4 network whose prefix length or host bits are wrong. Argument: a list of the name and the network. */}}
{{- define "dotproxy.validateNetwork" -}}
{{- $name := index . 0 -}}
{{- $network := index . 1 -}}
{{- $len := regexFind "/[0-9]+$" $network | trimPrefix "/" | int -}}
{{- $isIpv6 := contains ":" $network -}}
{{- if gt $len (ternary 128 32 $isIpv6) -}}
{{- fail (printf "options.%s: %q: expected a prefix length from 0 to 32 (IPv6: 0 to 128)" $name $network) -}}
{{- end -}}
{{- if and (contains "/" $network) (not $isIpv6) -}}
{{- $number := 0 -}}
{{- range slice (regexFindAll "[0-9]+" $network -1) 0 4 -}}
{{- $number = add (mul $number 256) (int64 .) -}}
{{- end -}}
{{- $size := 1 -}}
{{- range until (int (sub 32 $len)) -}}
{{- $size = mul $size 2 -}}
{{- end -}}
{{- if mod $number $size -}}
{{- fail (printf "options.%s: %q: expected a network whose host bits are zero, like 10.0.0.0/8, or an address" $name $network) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails on options and upstreams that the program refuses. */}}
{{- define "dotproxy.validateValues" -}}
{{- $setting := "^(domain=.+|domains-file=.+|pin-sha256=.+|pin-only|pin-report|client-cert=.+|client-key=.+|dnssec|fallback)$" -}}
{{- $ipv4 := "((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3})" -}}
{{- if not .Values.upstreams -}}
{{- fail "upstreams: expected one or more upstreams, like 9.9.9.9@853#dns.quad9.net" -}}
{{- end -}}
{{- range $upstream := .Values.upstreams -}}
{{- if not (regexMatch "^\\S+$" $upstream) -}}
{{- fail (printf "upstreams: %q: expected an upstream without spaces, like 9.9.9.9@853#dns.quad9.net" $upstream) -}}
{{- end -}}
{{- range rest (splitList "," $upstream) -}}
{{- if not (regexMatch $setting .) -}}
{{- fail (printf "upstreams: %q: expected domain=, domains-file=, pin-sha256=, pin-only, pin-report, client-cert=, client-key=, dnssec or fallback after a comma, not %q" $upstream .) -}}
{{- end -}}
{{- if and (hasPrefix "pin-sha256=" .) (not (regexMatch "^pin-sha256=[A-Za-z0-9+/]{43}=$" .)) -}}
{{- fail (printf "upstreams: %q: expected a SHA-256 digest in base64 after pin-sha256=, 44 characters as printed by scripts/pin.sh" $upstream) -}}
{{- end -}}
{{- end -}}
{{- $spec := index (splitList "," $upstream) 0 -}}
{{- if and (contains "://" $spec) (not (regexMatch "^(?i)(tls|https|tcp|udp)://" $spec)) -}}
{{- fail (printf "upstreams: %q: expected tls://, https://, tcp:// or udp://, or no scheme, which means tls://; HTTP/3 and DNS over QUIC are not supported" $upstream) -}}
{{- end -}}
{{- if hasSuffix "#" $spec -}}
{{- fail (printf "upstreams: %q: expected a host name after #, like 9.9.9.9#dns.quad9.net" $upstream) -}}
{{- end -}}
{{- $authority := index (splitList "/" (index (splitList "#" (last (splitList "://" $spec))) 0)) 0 -}}
{{- $port := include "dotproxy.port" (list $authority "853") | int64 -}}
{{- if or (lt $port 1) (gt $port 65535) -}}
{{- fail (printf "upstreams: %q: expected a port from 1 to 65535" $upstream) -}}
{{- end -}}
{{- $host := regexReplaceAll "^([^:@]*)[:@][0-9]+$" $authority "${1}" -}}
{{- if and (regexMatch "^[0-9.]+$" $host) (not (regexMatch (printf "^%s$" $ipv4) $host)) -}}
{{- fail (printf "upstreams: %q: expected an IPv4 address of four numbers from 0 to 255, like 9.9.9.9" $upstream) -}}
{{- end -}}
{{- if and (regexMatch "^[^:]*[a-zA-Z][^:]*$" $host) (not $.Values.options.bootstrap) -}}
{{- fail (printf "upstreams: %q: a host name needs options.bootstrap, a plain DNS server that resolves it, like 10.96.0.10" $upstream) -}}
{{- end -}}
{{- end -}}
{{- $ip := printf "(%s|%s)" $ipv4 "\\[?[0-9a-fA-F]*:[0-9a-fA-F:.]+(%[^\\]]+)?\\]?" -}}
{{- range $name := list "allow" "deny" "bootstrap" -}}
{{- $given := get $.Values.options $name | default list -}}
{{- range ternary $given (list $given) (kindIs "slice" $given) -}}
{{- $isPeer := eq $name "bootstrap" -}}
{{- if not (regexMatch (printf "^%s%s$" $ip (ternary "([:@][0-9]+)?" "(/[0-9]{1,3})?" $isPeer)) .) -}}
{{- fail (printf "options.%s: %q: expected %s" $name . (ternary "an IP address like 10.96.0.10" "a network like 10.0.0.0/8, or an address" $isPeer)) -}}
{{- end -}}
{{- if not $isPeer -}}
{{- include "dotproxy.validateNetwork" (list $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with get .Values.options "rate-limit" -}}
{{- $text := include "dotproxy.scalar" . -}}
{{- if not (regexMatch "^0*([1-9][0-9]{0,5}|1000000)(/0*([1-9][0-9]{0,5}|1000000))?$" $text) -}}
{{- fail (printf "options.rate-limit: %q: expected queries per second from 1 to 1000000, and optionally a burst, like 100/500" $text) -}}
{{- end -}}
{{- end -}}
{{- if eq (include "dotproxy.scalar" (get .Values.options "rate-limit")) "0" -}}
{{- fail "options.rate-limit: 0: expected queries per second from 1 to 1000000: leave it out for no limit" -}}
{{- end -}}
{{- $year := 31536000000 -}}
{{- $ranges := dict "timeout" (list 100 3600000) "reload-interval" (list 1000 $year) "serve-stale" (list 0 $year)
      "cache-min-ttl" (list 0 $year) "cache-max-ttl" (list 0 $year) "cache-max-negative-ttl" (list 0 $year) -}}
{{- range $name, $range := $ranges -}}
{{- if hasKey $.Values.options $name -}}
{{- $milliseconds := include "dotproxy.milliseconds" (get $.Values.options $name) | int64 -}}
{{- $isNever := and (eq $name "reload-interval") (eq $milliseconds 0) -}}
{{- if and (not $isNever) (or (lt $milliseconds (index $range 0 | int64)) (gt $milliseconds (index $range 1 | int64))) -}}
{{- $expected := get (dict "timeout" "from 100ms to 1h" "reload-interval" "from 1s to 365d, or 0 for never") $name | default "up to 365d" -}}
{{- fail (printf "options.%s: %q: expected a duration %s, like 500ms or 5 (seconds)" $name (include "dotproxy.scalar" (get $.Values.options $name)) $expected) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails on ports that the pods cannot open. */}}
{{- define "dotproxy.validatePorts" -}}
{{- $ports := dict -}}
{{- range $name, $port := .Values.containerPorts -}}
{{- $isTls := or (eq $name "tls") (eq $name "https") -}}
{{- if or (not $isTls) (and $.Values.tls.secretName (or (eq $name "tls") $.Values.tls.https)) -}}
{{- $port = $port | int64 -}}
{{- if and (lt $port 1024) (not $.Values.podSecurityContext.sysctls) -}}
{{- fail (printf "containerPorts.%s: %d: expected a port from 1024, since the pods have no privilege; the Service has the ports 53, 853 and 443" $name $port) -}}
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
{{- $timeout := get .Values.options "timeout" | default "5s" -}}
{{- $needed := add 6 (div (add (include "dotproxy.milliseconds" $timeout | int64) 999) 1000) -}}
{{- if lt (int64 .Values.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds: %d: expected %d or more: 5 s for clients to stop sending, options.timeout (%s) for pending queries, and a margin of 1 s" (int64 .Values.terminationGracePeriodSeconds) $needed (include "dotproxy.scalar" $timeout)) -}}
{{- end -}}
{{- range $name, $secret := dict "tls.secretName" .Values.tls.secretName "existingSecret" .Values.existingSecret -}}
{{- if not (regexMatch "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$" $secret) -}}
{{- fail (printf "%s: %q: expected the name of a Secret: lower-case letters, digits, - and ." $name $secret) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.clientCertificates (not .Values.tls.secretName) -}}
{{- fail "tls.clientCertificates: expected tls.secretName, the Secret with tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- if and .Values.tls.https (not .Values.tls.secretName) -}}
{{- fail "tls.https: expected tls.secretName, the Secret with tls.crt and tls.key" -}}
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
