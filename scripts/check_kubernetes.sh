#!/bin/bash
# Checks the manifests for Kubernetes, the chart, the alerts, the image and the Compose file with
# their own tools: kubectl, Helm, promtool, buildah, and the schemas of Kubernetes and Compose.
# scripts/check_deploy.sh calls it.
set -u
cd "$(dirname "$0")/.." || exit 2

# shellcheck source=scripts/testbed.sh
. scripts/testbed.sh
need buildah dig promtool python3
# Tools that scripts/install_test_deps.sh installs below target/.
export PYTHONPATH=$PWD/target/python PATH=$PWD/target/python/bin:$PATH
need helm kubectl
absolute=$(realpath "$binary")
: >"$work/dotproxy.log"
silent() { "$@" 2>&1 || echo "exit code $?"; }
right='^[0-9]+ resources are right$'
manifests() { scripts/check_manifests.py "$1" "$absolute"; }
render() { kubectl kustomize "$1"; }

# Kustomize: a tree with the components in use.
tree="$work/tree"
mkdir "$tree"
cp -r deploy "$tree"
mkdir "$tree"/{tls,tls-node-local,sidecar}
for base in base node-local; do
    folder="$tree/tls${base#base}"
    [ "$base" = base ] || folder="$tree/tls-node-local"
    cat >"$folder/kustomization.yaml" <<YAML
resources: [../deploy/kubernetes/$base]
components: [../deploy/kubernetes/tls]
YAML
done
cat >"$tree/sidecar/kustomization.yaml" <<'YAML'
namespace: shop
resources: [workloads.yaml, settings.yaml]
components: [../deploy/kubernetes/sidecar]
YAML
sed 's/namespace: default/namespace: shop/; s/ cluster.local/ corp.internal/; s/ 10.96.0.10/ fd00::a/' \
    deploy/kubernetes/sidecar/settings.yaml >"$tree/sidecar/settings.yaml"
cat >"$tree/sidecar/workloads.yaml" <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {dotproxy: sidecar}}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:1"}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, labels: {dotproxy: sidecar}}
spec:
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec: {containers: [{name: store, image: "store:1"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: other, image: "other:1"}]}
YAML
for overlay in deploy/kubernetes/{base,node-local,monitoring,scaling,pinned} "$tree"/{tls,tls-node-local,sidecar}; do
    name=$(basename "$overlay")
    render "$overlay" >"$work/$name.yaml"
    check "Kubernetes, $name: resources and options are valid" "$right" manifests "$work/$name.yaml"
done
# The check itself: faults that it must find.
fault() { # sed expression, overlay
    sed -E "$1" "$work/$2.yaml" >"$work/fault.yaml"
    cmp -s "$work/fault.yaml" "$work/$2.yaml" && return
    manifests "$work/fault.yaml" && return
    return 0
}
check "fault found: the pod is not ready during an outage" 'probes:' fault 's/readyz.latch/readyz/' base
check "fault found: metrics over IPv4 only" 'not every address' fault 's/= :9153/= 0.0.0.0:9153/' base
check "fault found: a Service for one address family" 'ipFamilyPolicy' fault '/ipFamilyPolicy/d' base
check "fault found: pods that are not ready block a drain" 'not ready stay' fault '/unhealthyPodEvictionPolicy/d' base
check "fault found: a budget that allows no eviction" 'minAvailable' fault 's/maxUnavailable: 1/minAvailable: 2/' base
check "fault found: the policy blocks an upstream" 'need \[\(8530, ' fault 's/1.1.1.1@853/1.1.1.1@8530/' base
check "fault found: the policy blocks a proposed upstream" "need .*'UDP'" fault 's/port: 53$/port: 54/' base
check "fault found: the policy selects no resolver of the cluster" 'select the pods of the program' \
    fault 's/^( +)matchExpressions:/\1matchLabels: {app.kubernetes.io\/name: dotproxy}\n&/' base
check "fault found: more memory than the container has" 'exceeds the limit' fault 's/= 12m/= 32m/' base

searches() { # name of a workload
    python3 - "$work/sidecar.yaml" "$1" <<'PYTHON'
import sys, yaml
workload = next(one for one in yaml.safe_load_all(open(sys.argv[1])) if one["metadata"]["name"] == sys.argv[2])
pod = workload["spec"]["template"]["spec"]
print(*pod["dnsConfig"]["searches"] if "dnsConfig" in pod else ["unchanged"])
for container in pod.get("initContainers", []):
    print(*(f"{variable['name']}={variable['value']}" for variable in container["env"]))
PYTHON
}
for name in shop store; do
    check "sidecar, $name: search list of its namespace and cluster" \
        '^shop.svc.corp.internal svc.corp.internal corp.internal$' searches "$name"
    check "sidecar, $name: names and reverse names of the cluster" \
        '^CLUSTER_DNS=fd00::a CLUSTER_DOMAIN=corp.internal REVERSE_ZONE=10.in-addr.arpa$' searches "$name"
done
check "sidecar: other workloads are unchanged" '^unchanged$' searches other
check "sidecar: its settings are not applied" '^exit code 1$' silent grep -c 'kind: ConfigMap' "$work/sidecar.yaml"
# The sidecar with the rendered options, in front of a resolver that has the names of a cluster.
resolver_port=$(free_port)
cat >"$work/cluster.conf" <<CONF
server:
$(unbound_defaults)
    interface: 127.0.0.1@$resolver_port
    local-zone: "corp.internal." static
    local-data: "store.shop.svc.corp.internal. 30 IN A 10.1.2.3"
    local-zone: "10.in-addr.arpa." static
    local-data: "3.2.1.10.in-addr.arpa. 30 IN PTR store-0.store.shop.svc.corp.internal."
remote-control:
    control-enable: no
CONF
unbound -d -c "$work/cluster.conf" 2>"$work/cluster.log" &
pids+=("$!")
port=$(free_port)
mapfile -t options < <(python3 - "$work/sidecar.yaml" <<'PYTHON'
import sys, yaml
pods = [one for one in yaml.safe_load_all(open(sys.argv[1])) if one["metadata"]["name"] == "shop"]
container = pods[0]["spec"]["template"]["spec"]["initContainers"][0]
for argument in container["args"]:
    for variable in container["env"]:
        argument = argument.replace(f"$({variable['name']})", variable["value"])
    print(argument)
PYTHON
)
options=("${options[@]/fd00::a/127.0.0.1:$resolver_port}")
options=("${options[@]/127.0.0.1:53/127.0.0.1:$port}")
launch "$work/sidecar.log" "$binary" "${options[@]/:9153/:$(free_port)}"
# Resolves a name as the C library does: by the search list if it has fewer dots than ndots, here 2.
resolve() { # name
    local domain answer
    for domain in $(searches shop | head -1); do
        answer=$(ask +short "$1.$domain" A)
        [ -z "$answer" ] || break
    done
    echo "$answer"
}
await ask +short store.shop.svc.corp.internal A
check "sidecar: a name of the same namespace" '^10\.1\.2\.3$' resolve store
check "sidecar: a name of another namespace" '^10\.1\.2\.3$' resolve store.shop
check "sidecar: the reverse name of a pod" '^store-0\.store\.shop\.svc\.corp\.internal\.$' ask +short -x 10.1.2.3
name_image=$(grep '^sed -i .* deploy/kubernetes/base/kustomization.yaml$' README.md)
(cd "$tree" && eval "$name_image")
check "Kubernetes: the image is named as the README says" 'image: registry\.example/dotproxy:[0-9.]+$' \
    render "$tree/deploy/kubernetes/base"

# The probes of a pod, before and during an outage of its upstream. No client sends a query.
resolver_port=$(free_port)
start_unbound "$resolver_port"
resolver=${pids[-1]}
probe_port=$(free_port)
launch "$work/dotproxy.log" "$binary" -l 127.0.0.1 -p "$(free_port)" -u "127.0.0.1:$resolver_port" \
    --ca-file "$work/ca.pem" --http-listen ":$probe_port"
probe() { # name, address
    local path
    path=$(python3 - "$work/base.yaml" "$1" <<'PYTHON'
import sys, yaml
pods = [one for one in yaml.safe_load_all(open(sys.argv[1])) if one["kind"] == "Deployment"]
print(pods[0]["spec"]["template"]["spec"]["containers"][0][sys.argv[2]]["httpGet"]["path"])
PYTHON
    )
    "$binary" --probe "http://$2:$probe_port$path" && echo "status 200"
}
for address in 127.0.0.1 '[::1]'; do
    for name in startupProbe readinessProbe livenessProbe; do
        check_soon "pod, $name, $address: passes" '^status 200$' probe "$name" "$address"
    done
done
kill "$resolver" && wait "$resolver" 2>/dev/null
check_soon "pod, outage: a new pod would not start" '^exit code 1$' silent probe startupProbe 127.0.0.1
if "$binary" --help | grep -q -- --reload-interval; then
    check "pod, outage: it stays in its Service" '^status 200$' probe readinessProbe 127.0.0.1
else
    echo "skipped the readiness in an outage: this program has neither --reload-interval nor /readyz?latch"
fi
check "pod, outage: it is not restarted" '^status 200$' probe livenessProbe 127.0.0.1

# A volume of a ConfigMap, as the kubelet lays it out: an update replaces a folder behind a link. The
# program finds the new options by itself, inside of its sandbox.
volume="$work/volume"
mkdir -p "$volume/..first" "$volume/..second"
port=$(free_port)
for version in first second; do
    printf 'port = %s\nlisten = 127.0.0.1\nupstream = 192.0.2.1\nlog-level = info\n' "$port" >"$volume/..$version/dotproxy.conf"
done
echo 'upstream = 192.0.2.2' >>"$volume/..second/dotproxy.conf"
reloads=false
if "$binary" --help | grep -q -- --reload-interval; then
    reloads=true
    tee -a "$volume/..first/dotproxy.conf" "$volume/..second/dotproxy.conf" <<<'reload-interval = 1s' >/dev/null
fi
ln -s ..first "$volume/..data"
ln -s ..data/dotproxy.conf "$volume/dotproxy.conf"
launch "$work/reload.log" "$binary" -C "$volume/dotproxy.conf"
await grep -q 'upstream 192.0.2.1' "$work/reload.log"
ln -s ..second "$volume/..next"
mv -T "$volume/..next" "$volume/..data"
rm -r "$volume/..first"
$reloads || kill -HUP "$launched"
check_soon "Kubernetes: a changed ConfigMap takes effect without a restart" 'upstream 192\.0\.2\.2' \
    cat "$work/reload.log"

# The alerts and the parts that are generated.
check "generated files are up to date" 'as generated$' scripts/generate_manifests.py --check
check "alerts, kustomize: each fires and does not fire" 'job=dotproxy$' scripts/check_rules.py "$work/monitoring.yaml"

# The chart, with several sets of values.
chart=deploy/helm/dotproxy
helm_template() { # name; values come by standard input
    cat >"$work/$1.values"
    helm template dns "$chart" --namespace dns --no-hooks --values "$work/$1.values" >"$work/chart-$1.yaml"
}
chart() { helm_template "$1" && manifests "$work/chart-$1.yaml"; }
rendered() { cat "$work/chart-$1.yaml"; }
refused() { # values come by standard input
    helm_template refused && echo "the values were not refused"
    return 0
}
check "chart: no warning of helm lint" '0 chart\(s\) failed' helm lint --strict "$chart"
check "chart: defaults" "$right" chart plain </dev/null
check "chart: the test pod is valid" '^name: dns-dotproxy-answers$' eval \
    "helm template dns $chart --show-only templates/tests/answers.yaml | sed -n 's/^  name:/name:/p'"
check "chart: on each node, with monitoring" "$right" chart nodes <<'YAML'
kind: DaemonSet
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
tolerations: [{operator: Exists, effect: NoSchedule}]
nameOverride: forwarder
YAML
check "alerts, chart: each fires and does not fire" 'job=dotproxy$' scripts/check_rules.py "$work/chart-nodes.yaml"
check "chart: labels for the Prometheus operator" '^2$' grep -c 'release: prometheus' "$work/chart-nodes.yaml"
check "chart: every value set" "$right" chart all <<'YAML'
upstreams: ["udp://10.96.0.10,domain=cluster.local", "192.0.2.1@853#dns.example", "[2001:db8::1]:8853", "tls://dns.example:443"]
options:
  cache-size: 33554432
  max-inflight: 10000
  prefetch: true
  no-sandbox: false
  allow: [10.0.0.0/8, "fd00::/8"]
  bootstrap: [10.96.0.10, "192.0.2.53:5300"]
  otlp: http://192.0.2.9:4318
  trace-sample: 0.001
  dnstap: tcp:192.0.2.8:6000
extraArgs: [--verbose]
existingSecret: keys
tls: {secretName: server-tls, clientCertificates: true, https: true}
image: {repository: "registry.example:5000/dotproxy", tag: "1", pullPolicy: Always}
imagePullSecrets: [{name: pull}]
fullnameOverride: resolver
commonLabels: {team: network}
replicas: 3
autoscaling: {enabled: true, minReplicas: 3, queriesPerSecond: 20000}
podDisruptionBudget: {minAvailable: 50%}
updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1, maxSurge: 0}}
service:
  type: LoadBalancer
  annotations: {example.com/internal: "true"}
  clusterIP: fd00::53
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv6, IPv4]
  loadBalancerClass: example.com/lb
  loadBalancerSourceRanges: [10.0.0.0/8]
containerPorts: {dns: 1053, tls: 1853, https: 1443, http: 9154}
dnsPolicy: ClusterFirst
networkPolicy: {clients: [{ipBlock: {cidr: 10.0.0.0/8}}], extraEgress: [{ports: [{port: 9000, protocol: TCP}]}]}
resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 128Mi}}
probes: {startup: {failureThreshold: 600}}
serviceAccount: {name: resolver-account, annotations: {example.com/role: dns}}
podLabels: {tier: dns}
podAnnotations: {example.com/note: "1"}
nodeSelector: {kubernetes.io/os: linux}
affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {tier: dns}}}}]}}
topologySpreadConstraints: [{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {tier: dns}}}]
priorityClassName: system-cluster-critical
terminationGracePeriodSeconds: 30
extraEnv: [{name: SSLKEYLOGFILE, value: /dev/null}]
extraVolumes: [{name: lists, configMap: {name: lists}}]
extraVolumeMounts: [{name: lists, mountPath: /etc/lists}]
serviceMonitor: {enabled: true, interval: 15s}
YAML
check "chart: its options follow the values" '^    prefetch$' rendered all
check "chart: a disabled option is absent" '^exit code 1$' silent grep no-sandbox "$work/chart-all.yaml"
while read -r value mode; do
    check "chart: dnssec: $value, a boolean in YAML or a word, is the mode $mode" "^    dnssec = $mode\$" eval \
        "helm_template dnssec && rendered dnssec" <<<"options: {dnssec: $value}"
done <<'LIST'
on on
off off
"on" on
log log
LIST
check "chart: large numbers are integers" '^    cache-size = 33554432$' rendered all
check "chart: small numbers have a decimal point" '^    trace-sample = 0.001$' rendered all
check "chart: every label is set" '^10$' grep -c 'team: network' "$work/chart-all.yaml"
check "chart: no budget for a single pod" '^exit code 1$' silent eval \
    "helm_template single <<<'{replicas: 1, autoscaling: {enabled: false}}' && grep PodDisruptionBudget $work/chart-single.yaml"
check "chart: on the network of the node" "$right" chart host <<'YAML'
kind: DaemonSet
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
serviceAccount: {create: false}
YAML
check "chart: on the network of the node, the old pod ends first" '^ +maxSurge: 0$' rendered host
check "chart: what the other sets leave out" "$right" chart rest <<'YAML'
replicas: 3
autoscaling: {enabled: false}
podDisruptionBudget: {maxUnavailable: 2}
service: {type: NodePort, internalTrafficPolicy: Cluster, externalTrafficPolicy: Cluster}
serviceMonitor: {enabled: true}
prometheusRule: {enabled: true, labels: {release: prometheus}}
networkPolicy: {monitoringNamespace: observability}
tls: {secretName: server-tls, https: true, addresses: ["::"]}
test: {image: "registry.example/busybox:1", name: example.org}
podSecurityContext: {runAsUser: 65533}
securityContext: {procMount: Default}
probes: {readiness: {periodSeconds: 1}, liveness: {periodSeconds: 20}}
YAML
check "chart: no budget and no policy if switched off" '^exit code 1$' silent eval \
    "helm_template off && grep -E 'PodDisruptionBudget|NetworkPolicy' $work/chart-off.yaml" <<'YAML'
autoscaling: {enabled: true, minReplicas: 2, maxReplicas: 4, cpu: 250m}
podDisruptionBudget: {enabled: false}
networkPolicy: {enabled: false}
YAML
check "chart: each value has an effect" 'have an effect$' scripts/check_chart_values.py "$work"/{all,nodes,host,rest,off}.values
check "chart: a default is removed by null" '^exit code 1$' silent eval \
    "helm_template null <<<'options: {log-format: null}' && grep log-format $work/chart-null.yaml"
check "chart: an unknown value is refused" 'upstream is not allowed' refused <<<'upstream: 192.0.2.1'
while read -r option value; do
    check "chart: $option, which the chart sets, is refused with its value" \
        "options.$option: the chart sets this option: use the value $value" refused <<<"options: {$option: a}"
done <<'LIST'
port containerPorts.dns
listen containerPorts.dns
upstream upstreams
http-listen containerPorts.http
tls-listen tls.addresses and containerPorts.tls
https-listen tls.https and containerPorts.https
tls-cert tls.secretName
tls-key tls.secretName
tls-client-ca tls.clientCertificates
LIST
check "chart: an unknown option is refused" 'cache_size. not allowed|cache_size is not allowed' \
    refused <<<'options: {cache_size: 1m}'
while read -r option value; do
    check "chart: a wrong value of $option is refused" "options[./]$option\b" refused <<<"options: {$option: $value}"
done <<'LIST'
allow "10.0.0.0/8, fd00::/8"
deny ["10.0.0.0/8 fd00::/8"]
bootstrap 53
rate-limit 5/s
rate-limit 0
allow 10.0.0.1/33
policy fast
ca-file ca.pem
clock-stamp stamp
clock-stamp /var/lib/stamp
cache-file /var/lib/cache
timeout 5 seconds
max-tcp-clients 0
max-inflight 60001
cache-size 1x
cache-size 32Mi
memory-limit -1
cache-min-ttl 1w
cache-max-ttl 1.5h
cache-max-negative-ttl ""
serve-stale -1
prefetch "yes"
dnssec maybe
trust-anchor /etc/anchors
log-format xml
query-log dns.json
query-log /var/log/dns.json
query-log-clients all
dnstap /run/dnstap.sock
otlp https://192.0.2.1
trace-sample 2
reload-interval soon
reload-interval 500ms
reuse-port 1
user [nobody]
no-sandbox "no"
log-level loud
verbose 1
LIST
check "chart: an upstream with dnssec is accepted" '^    upstream = udp://10.0.0.53,domain=corp.example,dnssec$' eval \
    "helm_template dnssec && rendered dnssec" <<<'upstreams: ["udp://10.0.0.53,domain=corp.example,dnssec"]'
check "chart: the port of a scheme in upper case is open over UDP, too" 'protocol: UDP' eval \
    "helm_template scheme && rendered scheme | grep -A1 'port: 53\$'" \
    <<<'upstreams: ["UDP://10.0.0.53,domain=corp.example"]'
check "chart: an unknown setting of an upstream is refused" 'or fallback after a comma, not "dnssec=1"' \
    refused <<<'upstreams: ["udp://10.0.0.53,domain=corp.example,dnssec=1"]'
for file in /etc/ssl/ca.pem /etc/dotproxy-secret2/ca.pem /etc/dotproxy-secret; do
    check "chart: the CA file $file outside of the volumes is refused" \
        'options.ca-file: .*no volume has this file' \
        refused <<<"{options: {ca-file: $file}, existingSecret: keys}"
done
while read -r file values; do
    check "chart: the CA file $file is accepted with its volume" "^    ca-file = $file\$" eval \
        "helm_template ca && rendered ca" <<<"{options: {ca-file: $file}, $values}"
done <<'LIST'
/etc/dotproxy-secret/ca.pem existingSecret: keys
/etc/dotproxy-tls/ca.crt tls: {secretName: server-tls}
/etc/lists/ca.pem extraVolumes: [{name: lists, configMap: {name: lists}}], extraVolumeMounts: [{name: lists, mountPath: /etc/lists}]
LIST
for scheme in udp tcp; do
    check "chart: clear text over $scheme without a domain is refused" 'expected domain= with udp://' \
        refused <<<"upstreams: ['$scheme://10.0.0.53']"
done
check "chart: a pod that is killed before its timeout is refused" \
    'terminationGracePeriodSeconds: 15: expected 66 or more' refused <<<'options: {timeout: 1m}'
check "chart: a budget that allows no eviction is refused" 'allows no eviction with 2 pods' \
    refused <<<'podDisruptionBudget: {minAvailable: 2}'

# Memory: the limits of the container and of the program follow from each other.
check "chart: the container has the memory that a cache needs" "$right" chart cache <<<'options: {cache-size: 32m}'
check "chart: more than 32 MiB, then" '^ +memory: [4-9][0-9]Mi$' rendered cache
check "chart: the cache has the memory that the container has" '^    memory-limit = 50331648$' eval \
    "helm_template limit <<<'resources: {limits: {memory: 64Mi}}' && rendered limit"
check "chart: a container that is too small for its cache is refused" 'does not fit .*set it to [0-9]+Mi or more' \
    refused <<<'{options: {cache-size: 32m}, resources: {limits: {memory: 16Mi}}}'
check "chart: --memory-limit above that of the container is refused" 'exceeds the memory limit of the container' \
    refused <<<'{options: {memory-limit: 32m}, resources: {limits: {memory: 16Mi}}}'
# The largest cache that the program accepts is the largest that the chart accepts.
largest_cache() { # MiB of the container, values of the chart, options of the program
    local bytes=$(($1 * 3 * 1024 * 1024 / 4)) most
    # shellcheck disable=SC2086 # a list of words
    most=$("$binary" -u 192.0.2.1 $3 --memory-limit "$bytes" --cache-size 1g --check-conf 2>&1 |
        sed -n 's/.*expected at most \([0-9]*\)k .*/\1/p')
    values() { echo "{$2, resources: {limits: {memory: ${1}Mi}}, options: {cache-size: ${3}k}}"; }
    values "$1" "$2" "$most" | helm_template largest || return
    values "$1" "$2" "$((most + 1))" | refused
}
for mib in 8 16 64 1000; do
    check "chart: the largest cache in $mib MiB is that of the program" 'does not fit' \
        largest_cache "$mib" 'tls: {}' ''
    check "chart: the same with TLS clients" 'does not fit' largest_cache "$mib" 'tls: {secretName: a}' \
        "--tls-listen 127.0.0.1 --tls-cert $work/server.pem --tls-key $work/server.key"
done
check "Argo CD: the path of the chart exists" '^name: dotproxy$' \
    cat "$(sed -n 's/^    path: //p' deploy/argocd/application.yaml)/Chart.yaml"
check "Argo CD: its values are valid" "$right" eval "python3 -c 'import yaml; print(yaml.safe_dump(
    yaml.safe_load(open(\"deploy/argocd/application.yaml\"))[\"spec\"][\"source\"][\"helm\"][\"valuesObject\"]))' | chart argocd"

check "documents: their manifests, values and commands are valid" 'are right$' scripts/check_kubernetes_docs.py "$absolute"

# The image and the Compose file.
check "Compose: the file and its options are valid" 'are right$' scripts/check_compose.py "$absolute"
check "image: an option replaces that of the image" 'are valid' "$binary" --http-listen=127.0.0.1:9153 \
    -u 192.0.2.1 --http-listen 0.0.0.0:9153 --check-conf
# Its first build stage is replaced by the binary that was built here.
static="target/$(uname -m)-unknown-linux-musl/release/dotproxy"
check "Dockerfile: no warning of hadolint" '^$' silent hadolint Dockerfile
if [ -e "$static" ]; then
    mkdir -p "$work/build/dotproxy/target/release"
    cp "$static" "$work/build/dotproxy/target/release/"
    echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy.json"
    image() { buildah --storage-driver vfs --root "$work/images" --runroot "$work/run" "$@"; }
    check "image: builds" '[0-9a-f]{64}' image bud -q --isolation chroot --format docker \
        --signature-policy "$work/policy.json" --build-context "build=$work/build" -t dotproxy .
    check "image: unprivileged user" '"User": "65532:65532"' image inspect --type image dotproxy
    check "image: it has a health check" '"--probe"' image inspect --type image dotproxy
    container=$(image from --signature-policy "$work/policy.json" dotproxy)
    root=$(image mount "$container")
    check "image: one file" '^/dotproxy$' find "$root" -type f -printf '/%P\n'
    check "image: 2.58 MB at most" '^(1[0-9]{6}|2[0-4][0-9]{5}|25[0-7][0-9]{4})$' stat -c %s "$root/dotproxy"
    check "image: runs" '^dotproxy [0-9]' chroot --userspec=65532:65532 "$root" /dotproxy --version
    image umount "$container" >/dev/null
    image rm "$container" >/dev/null
else
    echo "skipped the image: no static binary found"
fi
conclude
