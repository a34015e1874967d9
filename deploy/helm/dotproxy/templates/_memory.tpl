{{/*
Bytes of a size in the options of the program, like 4m or 500k: units are powers of 1024.
Argument: a list of the name of the value, and the value.
*/}}
{{- define "dotproxy.size" -}}
{{- $name := index . 0 -}}
{{- $text := include "dotproxy.scalar" (index . 1) | lower -}}
{{- if regexMatch "^[0-9]+[kmg]i$" $text -}}
{{- fail (printf "%s: %q: expected a size of the program, whose units are powers of 1024: write %s" $name (include "dotproxy.scalar" (index . 1)) (trimSuffix "i" $text)) -}}
{{- end -}}
{{- if not (regexMatch "^[0-9]+[kmg]?$" $text) -}}
{{- fail (printf "%s: %q: expected a number of bytes, or a size like 500k or 32m" $name $text) -}}
{{- end -}}
{{- $factors := dict "" 1 "k" 1024 "m" 1048576 "g" 1073741824 -}}
{{ mul (regexFind "^[0-9]+" $text | int64) (get $factors (regexFind "[kmg]$" $text)) }}
{{- end -}}

{{/* Bytes of a quantity of Kubernetes, like 64Mi or 64M. Argument: the same list. */}}
{{- define "dotproxy.quantity" -}}
{{- $name := index . 0 -}}
{{- $text := include "dotproxy.scalar" (index . 1) -}}
{{- if not (regexMatch "^[0-9]+(k|[KMG]i|[MG])?$" $text) -}}
{{- fail (printf "%s: %q: expected a quantity like 64Mi or 1Gi, without a decimal point" $name $text) -}}
{{- end -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{ mul (regexFind "^[0-9]+" $text | int64) (get $factors (regexFind "[a-zA-Z]+$" $text)) }}
{{- end -}}

{{/*
Bytes that the process takes beside its cache, at most, where `rest` bytes are left for cache,
queries and clients. This is the computation of the program (src/config/budget.rs);
scripts/check_kubernetes.sh compares the two.
*/}}
{{- define "dotproxy.besideCache" -}}
{{- $options := .root.Values.options -}}
{{- $clientLen := ternary 16384 1024 (ne "" .root.Values.tls.secretName) -}}
{{- $queries := get $options "max-inflight" | default (min 4096 (div .rest 4096)) -}}
{{- $clients := get $options "max-tcp-clients" | default (max 4 (min 256 (div .rest (mul 8 $clientLen)))) -}}
{{- $held := min 4194304 (div .rest 8) -}}
{{- $unsent := min 262144 (div .rest 16) -}}
{{ add (mul $queries 1024) (mul $clients $clientLen) $held $unsent }}
{{- end -}}

{{/*
Bytes that are left for the cache of a process with this memory limit; negative if the limits of
queries and clients do not fit. Argument: a dict of `root` and `process`.
*/}}
{{- define "dotproxy.cacheMax" -}}
{{- $rest := sub .process (include "dotproxy.programBytes" .) -}}
{{ sub $rest (include "dotproxy.besideCache" (dict "root" .root "rest" $rest) | int64) }}
{{- end -}}

{{/* Bytes of the idle program and its working memory. */}}
{{- define "dotproxy.programBytes" -}}4718592{{- end -}}

{{/* MiB of a container whose process has this many bytes, rounded up. */}}
{{- define "dotproxy.containerMib" -}}
{{ div (add (div (mul . 4) 3) 1048575) 1048576 }}
{{- end -}}

{{/*
The memory of a pod, as JSON: `process`, the bytes of --memory-limit, and `container`, the limit of
the container. The process gets three quarters of the container; the kernel takes the rest for
sockets and pages. Each of resources.limits.memory, options.memory-limit and options.cache-size
determines what the others leave open, and the chart fails if they contradict each other.
*/}}
{{- define "dotproxy.memory" -}}
{{- $options := .Values.options -}}
{{- $given := include "dotproxy.scalar" (dig "limits" "memory" "" .Values.resources) -}}
{{- $cache := 0 -}}
{{- if hasKey $options "cache-size" -}}
{{- $cache = include "dotproxy.size" (list "options.cache-size" (get $options "cache-size")) | int64 -}}
{{- end -}}
{{- $most := include "dotproxy.besideCache" (dict "root" . "rest" 1099511627776) | int64 -}}
{{- $needed := add (include "dotproxy.programBytes" .) $most (max $cache (ternary 0 1048576 (hasKey $options "cache-size"))) -}}
{{- $least := include "dotproxy.containerMib" $needed | int64 -}}
{{- $process := 12582912 -}}
{{- $container := "16Mi" -}}
{{- if hasKey $options "memory-limit" -}}
{{- $process = include "dotproxy.size" (list "options.memory-limit" (get $options "memory-limit")) | int64 -}}
{{- if lt $process 5242880 -}}
{{- fail (printf "options.memory-limit: %s: expected 5m or more, like 12m" (include "dotproxy.scalar" (get $options "memory-limit"))) -}}
{{- end -}}
{{- $container = printf "%dMi" (max 8 (include "dotproxy.containerMib" $process | int64)) -}}
{{- end -}}
{{- if $given -}}
{{- $bytes := include "dotproxy.quantity" (list "resources.limits.memory" $given) | int64 -}}
{{- if lt $bytes 8388608 -}}
{{- fail (printf "resources.limits.memory: %s: expected 8Mi or more" $given) -}}
{{- end -}}
{{- if not (hasKey $options "memory-limit") -}}
{{- $process = div (mul $bytes 3) 4 -}}
{{- else if gt (int64 $process) $bytes -}}
{{- fail (printf "options.memory-limit (%s) exceeds the memory limit of the container, resources.limits.memory (%s): raise resources.limits.memory, or leave it empty" (include "dotproxy.scalar" (get $options "memory-limit")) $given) -}}
{{- end -}}
{{- $container = $given -}}
{{- else if not (hasKey $options "memory-limit") -}}
{{- if gt $cache (include "dotproxy.cacheMax" (dict "root" . "process" $process) | int64) -}}
{{- $process = div (mul $least 3145728) 4 -}}
{{- $container = printf "%dMi" $least -}}
{{- end -}}
{{- end -}}
{{- $left := include "dotproxy.cacheMax" (dict "root" . "process" $process) | int64 -}}
{{- if gt $cache $left -}}
{{- $what := ternary (printf "options.cache-size (%s)" (include "dotproxy.scalar" (get $options "cache-size"))) "options.max-inflight or options.max-tcp-clients" (gt $cache 0) -}}
{{- if hasKey $options "memory-limit" -}}
{{- fail (printf "%s does not fit options.memory-limit (%s): leave options.memory-limit out, or set it to %dk or more" $what (include "dotproxy.scalar" (get $options "memory-limit")) (div (add $needed 1023) 1024)) -}}
{{- else -}}
{{- fail (printf "%s does not fit the memory limit of the container, resources.limits.memory (%s): leave resources.limits.memory empty, or set it to %dMi or more" $what $given $least) -}}
{{- end -}}
{{- end -}}
{{ dict "process" $process "container" $container | toJson }}
{{- end -}}

{{/* The resources of the container, with the memory filled in. */}}
{{- define "dotproxy.resources" -}}
{{- $memory := (include "dotproxy.memory" . | fromJson).container -}}
{{- $resources := deepCopy .Values.resources -}}
{{- $limits := merge (dict) ($resources.limits | default dict) -}}
{{- $requests := merge (dict) ($resources.requests | default dict) -}}
{{- if not $limits.memory -}}{{- $_ := set $limits "memory" $memory -}}{{- end -}}
{{- if not $requests.memory -}}{{- $_ := set $requests "memory" $limits.memory -}}{{- end -}}
{{- $_ := set $resources "limits" $limits -}}
{{- $_ := set $resources "requests" $requests -}}
{{ toYaml $resources }}
{{- end -}}
