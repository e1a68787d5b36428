{{/*
What the schema cannot say. Every message names the value and what to do.
*/}}
{{- define "surogate-bench.validate" -}}
{{- $store := .Values.objectStore -}}
{{- if and $store.bundled.enabled $store.external.url -}}
{{- fail (printf "objectStore.external.url is %q while objectStore.bundled.enabled is true: use one store. Set objectStore.bundled.enabled=false for the external one, or leave the URL empty." $store.external.url) -}}
{{- end -}}
{{- if not (or $store.bundled.enabled $store.external.url) -}}
{{- fail "objectStore.external.url is empty while objectStore.bundled.enabled is false: results need a store. Set the URL, for example s3://bucket/prefix, or objectStore.bundled.enabled=true." -}}
{{- end -}}
{{- range $name, $value := $store.external.env -}}
{{- if has $name (list "AWS_SECRET_ACCESS_KEY" "AWS_ACCESS_KEY_ID" "AWS_SESSION_TOKEN" "AZURE_STORAGE_ACCOUNT_KEY" "AZURE_STORAGE_SAS_TOKEN" "GOOGLE_SERVICE_ACCOUNT_KEY") -}}
{{- fail (printf "objectStore.external.env.%s is a credential, and these variables are readable by everyone who may read ConfigMaps. Put it into a Secret and name that in objectStore.external.existingSecret." $name) -}}
{{- end -}}
{{- end -}}
{{- range (lookup "apps/v1" "Deployment" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") $.Chart.Name) (eq (get $labels "app.kubernetes.io/component") "orchestrator") (ne (get $labels "app.kubernetes.io/instance") (include "surogate-bench.instance" $)) -}}
{{- fail (printf "namespace %q already has the release %q, whose controller runs all sweeps there. Install %q into a namespace of its own (--namespace)." $.Release.Namespace (get $labels "app.kubernetes.io/instance") $.Release.Name) -}}
{{- end -}}
{{- end -}}
{{- end }}
