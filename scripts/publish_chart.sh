#!/bin/sh
# Packages the chart and pushes it to a registry. Helm must be logged in to the registry.
#
#   scripts/publish_chart.sh oci://ghcr.io/OWNER/charts
set -eu
cd "$(dirname "$0")/.."
out=target/chart
rm -rf "$out"
helm lint --strict deploy/helm/dotproxy
helm package --destination "$out" deploy/helm/dotproxy
helm push "$out"/dotproxy-*.tgz "$1"
