{{/*
The controller's configuration.
*/}}

{{/* Maximum number of pods of a sweep that train or serve at once; empty if only the scheduler limits them. */}}
{{- define "surogate-bench.slots" -}}
{{- if not (kindIs "invalid" .Values.scheduling.slots) -}}
{{- int .Values.scheduling.slots -}}
{{- else if not (or (int .Values.trainer.gpus) (int .Values.modelServer.gpus)) -}}
8
{{- end -}}
{{- end }}

{{/* A Workload. Arguments: context, image, values. */}}
{{- define "surogate-bench.workload" -}}
image: {{ include "surogate-bench.image" (dict "context" .context "image" .image) | quote }}
resources:
  requests: {{ .values.resources.requests | default dict | toJson }}
  limits: {{ .values.resources.limits | default dict | toJson }}
{{- with .values.gpus }}
gpus: {{ int . }}
{{- end }}
{{- with .values.threads }}
threads: {{ int . }}
{{- end }}
env: {{ .values.env | toJson }}
{{- $scrape := include "surogate-bench.scrapeAnnotations" (dict "context" .context "port" (include "surogate-bench.port" "metrics")) | fromYaml }}
annotations: {{ merge (dict) .values.podAnnotations $scrape | toJson }}
{{- end }}

{{- define "surogate-bench.settings" -}}
{{- $full := include "surogate-bench.fullname" . -}}
{{- with .Values -}}
namespace: {{ $.Release.Namespace | quote }}
instance: {{ include "surogate-bench.instance" $ | quote }}
store:
  url: {{ include "surogate-bench.storeUrl" $ | quote }}
  env: {{ include "surogate-bench.storeEnv" $ | fromYaml | toJson }}
  {{- with include "surogate-bench.storeSecret" $ }}
  secret: {{ . | quote }}
  credentials: {{ include "surogate-bench.credentialsFolder" $ }}
  {{- end }}
trainer:
  {{- include "surogate-bench.workload" (dict "context" $ "image" .trainer.image "values" .trainer) | nindent 2 }}
prepare:
  {{- include "surogate-bench.workload" (dict "context" $ "image" .trainer.image "values" .prepare) | nindent 2 }}
model_server:
  {{- include "surogate-bench.workload" (dict "context" $ "image" .modelServer.image "values" .modelServer) | nindent 2 }}
evaluator:
  {{- include "surogate-bench.workload" (dict "context" $ "image" .evaluator.image "values" .evaluator) | nindent 2 }}
hub:
  enabled: {{ .hub.enabled }}
  {{- with .hub.token.existingSecret }}
  token: {name: {{ . | quote }}, key: {{ $.Values.hub.token.key | quote }}}
  {{- end }}
  {{- if .hub.cache.persistence.enabled }}
  cache_claim: {{ .hub.cache.persistence.existingClaim | default (printf "%s-hub-cache" $full) | quote }}
  {{- end }}
vllm_api_key: {name: {{ include "surogate-bench.apiKeySecret" $ | quote }}, key: {{ .modelServer.apiKey.key | quote }}}
image_pull_policy: {{ .images.pullPolicy }}
image_pull_secrets: {{ .images.pullSecrets | toJson }}
service_account: {{ $full }}-tasks
gpu_resource: {{ .gpuResource }}
scheduling:
  {{- with .scheduling.queueName }}
  queue_name: {{ . | quote }}
  {{- end }}
  {{- with .scheduling.priorityClassName }}
  priority_class_name: {{ . | quote }}
  {{- end }}
  {{- with .scheduling.runtimeClassName }}
  runtime_class_name: {{ . | quote }}
  {{- end }}
  {{- with .scheduling.nodeSelector }}
  node_selector: {{ . | toJson }}
  {{- end }}
  {{- with .scheduling.tolerations }}
  tolerations: {{ . | toJson }}
  {{- end }}
  compute_capability: {{ .scheduling.computeCapability }}
{{- with include "surogate-bench.slots" $ }}
slots: {{ . }}
{{- end }}
unschedulable_grace_s: {{ .scheduling.unschedulableGraceSeconds | int }}
start_grace_s: {{ .scheduling.startGraceSeconds | int }}
placement_timeout_s: {{ .scheduling.placementTimeoutSeconds | int }}
ttl_after_finished_s: {{ .tasks.ttlSecondsAfterFinished | int }}
termination_grace_s: {{ .tasks.terminationGracePeriodSeconds | int }}
shm_size: {{ .modelServer.shmSize | quote }}
{{- end }}
{{- end }}
