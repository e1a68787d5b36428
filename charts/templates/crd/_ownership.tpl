{{/*
Who owns the CustomResourceDefinition in the cluster: empty if there is none, "this release", "release NAME in namespace
NAMESPACE", or "no release".
*/}}
{{- define "surogate-bench.crdOwner" -}}
{{- if .Values.crds.install -}}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "recipesweeps.bench.surogate.ai" -}}
{{- if $found -}}
{{- $annotations := dig "metadata" "annotations" dict $found -}}
{{- $release := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- if and (eq $release .Release.Name) (eq $namespace .Release.Namespace) -}}
this release
{{- else if $release -}}
release {{ $release }} in namespace {{ $namespace }}
{{- else -}}
no release
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
