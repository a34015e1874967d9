# Completion of dotproxy for bash.
_dotproxy() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    case $before in
        --ca-file|--clock-stamp|--tls-cert|--tls-key|--tls-client-ca|--cache-file|--hosts|--block|--allow-names|--trust-anchor|--query-log|-C|--conf-file)
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            ;;
        *)
            mapfile -t COMPREPLY < <(compgen -W '--port --listen --allow --deny --rate-limit --upstream --bootstrap --policy --ca-file --clock-stamp --tls-listen --https-listen --designated --http-listen --tls-cert --tls-key --tls-client-ca --key-exchange --timeout --max-tcp-clients --max-inflight --cache-size --cache-file --memory-limit --cache-min-ttl --cache-max-ttl --cache-max-negative-ttl --serve-stale --prefetch --hosts --dns64 --block --allow-names --block-answer --dnssec --trust-anchor --negative-trust-anchor --log-format --query-log --query-log-clients --dnstap --otlp --trace-sample --reload-interval --reuse-port --user --no-sandbox --log-level --verbose --conf-file --check-conf --check-upstreams --probe --help --version' -- "$word")
            ;;
    esac
}
complete -o filenames -F _dotproxy dotproxy
