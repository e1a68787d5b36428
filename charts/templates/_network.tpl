{{/*
Parts of NetworkPolicies.
*/}}

{{/* Pods of this release by component. Arguments: context, components. */}}
{{- define "surogate-bench.peers" -}}
- podSelector:
    matchLabels:
      {{- include "surogate-bench.selectorLabels" (dict "context" .context) | nindent 6 }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: {{ .components | toJson }}}
{{- end }}

{{- define "surogate-bench.ports" -}}
{{- range $index, $port := . }}
{{- if $index }}{{ "\n" }}{{ end -}}
- {port: {{ int $port }}}
{{- end }}
{{- end }}

{{/* Egress rules to the object store. */}}
{{- define "surogate-bench.egressToStore" -}}
{{- if .Values.objectStore.bundled.enabled -}}
- to:
    {{- include "surogate-bench.peers" (dict "context" . "components" (list "object-store")) | nindent 4 }}
  ports: [{port: {{ include "surogate-bench.port" "store" }}}]
{{- else -}}
- to:
    {{- range .Values.networkPolicy.externalStore.cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- include "surogate-bench.ports" .Values.networkPolicy.externalStore.ports | nindent 4 }}
{{- end -}}
{{- end }}

{{/* Egress rules to the hub, if it may be reached. */}}
{{- define "surogate-bench.egressToHub" -}}
{{- if .Values.hub.enabled -}}
- to:
    {{- range .Values.networkPolicy.hub.blocks }}
    - ipBlock:
        {{- toYaml . | nindent 8 }}
    {{- end }}
  ports:
    {{- include "surogate-bench.ports" .Values.networkPolicy.hub.ports | nindent 4 }}
{{- end -}}
{{- end }}

{{/* Ingress rules for metrics and progress of a pod of a sweep. */}}
{{- define "surogate-bench.ingressForMetrics" -}}
- from:
    {{- include "surogate-bench.peers" (dict "context" . "components" (list "orchestrator")) | nindent 4 }}
    {{- with .Values.metrics.scrapeFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports: [{port: {{ include "surogate-bench.port" "metrics" }}}]
{{- end }}
