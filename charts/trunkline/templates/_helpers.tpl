{{- define "trunkline.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Kept to 40 characters: a role's name and a pod's suffix follow. */}}
{{- define "trunkline.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "trunkline.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "trunkline.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trunkline.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects a role's pods. Argument: (dict "root" $ "role" "gateway"). */}}
{{- define "trunkline.selector" -}}
app.kubernetes.io/name: {{ include "trunkline.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "trunkline.labels" -}}
{{ include "trunkline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: trunkline
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "trunkline.port.grpc" -}}7000{{- end -}}
{{- define "trunkline.port.admin" -}}9000{{- end -}}

{{/* Name of a role's objects. */}}
{{- define "trunkline.roleName" -}}
{{ include "trunkline.fullname" .root }}-{{ .role }}
{{- end -}}

{{/* Where a role's replicas are: a name that stands for all their addresses. */}}
{{- define "trunkline.endpoints" -}}
{{ include "trunkline.roleName" . }}.{{ .root.Release.Namespace }}.svc:{{ include "trunkline.port.grpc" .root }}
{{- end -}}

{{/*
From SIGTERM to SIGKILL: the drain delay, the hand-over, the open streams (each may take the drain
timeout), and 5 s to flush Kafka and traces.
*/}}
{{- define "trunkline.graceSeconds" -}}
{{- $ms := add (int .drain.delayMs) (mul 2 (int .drain.timeoutMs)) 999 -}}
{{- add (div $ms 1000) 5 -}}
{{- end -}}

{{/* An environment variable from a Secret. Argument: (dict "name" "X" "ref" (dict "name" .. "key" ..)). */}}
{{- define "trunkline.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .ref.name }}
      key: {{ .ref.key }}
{{- end -}}
