{{/*
Names.
*/}}

{{/* The label app.kubernetes.io/instance: the release's name as a DNS label. */}}
{{- define "surogate-bench.instance" -}}
{{- .Release.Name | replace "." "-" -}}
{{- end }}

{{/* Prefix of every name: at most 40 characters, so that names stay within 63, beginning with a letter as a Service's must. */}}
{{- define "surogate-bench.fullname" -}}
{{- $instance := include "surogate-bench.instance" . -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := ternary $instance (printf "%s-%s" $instance $chart) (contains $chart $instance) -}}
{{- $name = regexReplaceAll "^([0-9])" $name "r$1" -}}
{{- if gt (len $name) 40 -}}
{{- printf "%s-%s" (trunc 31 $name | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{/* Labels that NetworkPolicies and Services select by. Arguments: context, component. */}}
{{- define "surogate-bench.selectorLabels" -}}
app.kubernetes.io/name: {{ .context.Chart.Name }}
app.kubernetes.io/instance: {{ include "surogate-bench.instance" .context | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Labels of an object. Arguments: context, component. */}}
{{- define "surogate-bench.labels" -}}
{{ include "surogate-bench.selectorLabels" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image of surogate-bench. Arguments: context, image. */}}
{{- define "surogate-bench.image" -}}
{{- $tag := .image.tag | default .context.Values.images.tag | default .context.Chart.AppVersion -}}
{{- with .context.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- .image.repository }}:{{ $tag -}}
{{- end }}

{{/*
Pods: Pod Security "restricted", and nothing of the root file system may be written.
*/}}

{{- define "surogate-bench.podSecurityContext" -}}
{{- include "surogate-bench.podSecurityContextAs" (dict "user" 10001 "group" 10001) -}}
{{- end }}

{{/* Arguments: user, group. */}}
{{- define "surogate-bench.podSecurityContextAs" -}}
runAsNonRoot: true
runAsUser: {{ int .user }}
runAsGroup: {{ int .group }}
fsGroup: {{ int .group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "surogate-bench.containerSecurityContext" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end }}

{{- define "surogate-bench.imagePullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* nodeSelector, tolerations and priorityClassName of a component's values. */}}
{{- define "surogate-bench.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A port, by name. Those of the controller and of tasks are in surogate_bench.contract too; a test compares them. */}}
{{- define "surogate-bench.port" -}}
{{- get (dict "controller" 8080 "metrics" 9400 "server" 8100 "vllm" 8000 "store" 7070) . -}}
{{- end -}}

{{/* Annotations by which Prometheus discovers a pod. Arguments: context, port. */}}
{{- define "surogate-bench.scrapeAnnotations" -}}
{{- if .context.Values.metrics.podAnnotations -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end -}}
{{- end }}

{{/* spec of a PersistentVolumeClaim from a persistence value. */}}
{{- define "surogate-bench.claimSpec" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{/*
Secrets.
*/}}

{{/* Value of a key in a Secret of this release, base64; a new random one if there is none. Arguments: context, secret, key, length. */}}
{{- define "surogate-bench.keptSecretValue" -}}
{{- $found := lookup "v1" "Secret" .context.Release.Namespace .secret -}}
{{- $kept := index (dig "data" dict ($found | default dict)) .key -}}
{{- $kept | default (randAlphaNum .length | b64enc) -}}
{{- end }}

{{- define "surogate-bench.apiKeySecret" -}}
{{- .Values.modelServer.apiKey.existingSecret | default (printf "%s-vllm" (include "surogate-bench.fullname" .)) -}}
{{- end }}

{{/* Secrets that must exist already, as a YAML map: name, the value that names it. */}}
{{- define "surogate-bench.namedSecrets" -}}
{{- with .Values -}}
{{- $store := ternary "bundled" "external" .objectStore.bundled.enabled -}}
{{- with (get .objectStore $store).existingSecret }}
{{ . | quote }}: objectStore.{{ $store }}.existingSecret
{{- end }}
{{- with .modelServer.apiKey.existingSecret }}
{{ . | quote }}: modelServer.apiKey.existingSecret
{{- end }}
{{- with .hub.token.existingSecret }}
{{ . | quote }}: hub.token.existingSecret
{{- end }}
{{- range .images.pullSecrets }}
{{ . | quote }}: images.pullSecrets
{{- end }}
{{- end }}
{{- end }}
