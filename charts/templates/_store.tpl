{{/*
The object store, bundled or external.
*/}}

{{- define "surogate-bench.bundledStoreName" -}}
{{- printf "%s-object-store" (include "surogate-bench.fullname" .) -}}
{{- end }}

{{- define "surogate-bench.storeUrl" -}}
{{- if .Values.objectStore.bundled.enabled -}}
s3://{{ .Values.objectStore.bundled.bucket }}
{{- else -}}
{{- .Values.objectStore.external.url -}}
{{- end -}}
{{- end }}

{{/* The store's environment variables except for credentials, as a YAML map. */}}
{{- define "surogate-bench.storeEnv" -}}
{{- if .Values.objectStore.bundled.enabled -}}
AWS_ENDPOINT_URL: http://{{ include "surogate-bench.bundledStoreName" . }}.{{ .Release.Namespace }}.svc:{{ include "surogate-bench.port" "store" }}
AWS_REGION: {{ .Values.objectStore.bundled.region }}
{{- else -}}
{{- toYaml .Values.objectStore.external.env -}}
{{- end -}}
{{- end }}

{{/* Name of the Secret with its credentials; empty if there is none. */}}
{{- define "surogate-bench.storeSecret" -}}
{{- with .Values.objectStore -}}
{{- if .bundled.enabled -}}
{{- .bundled.existingSecret | default (include "surogate-bench.bundledStoreName" $) -}}
{{- else -}}
{{- .external.existingSecret -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* env and envFrom of a container that uses the store. */}}
{{- define "surogate-bench.storeContainerEnv" -}}
{{- range $name, $value := include "surogate-bench.storeEnv" . | fromYaml }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "surogate-bench.storeContainerEnvFrom" -}}
{{- with include "surogate-bench.storeSecret" . }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Folder in which the controller finds the keys of the store's Secret as files. */}}
{{- define "surogate-bench.credentialsFolder" -}}
/var/run/surogate-bench/store
{{- end }}
