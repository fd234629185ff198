{{- define "halffull.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" }}
{{- end }}

{{- /* The release's name where it holds the chart's, else both. */}}
{{- define "halffull.fullname" -}}
{{- $name := include "halffull.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "halffull.selectorLabels" -}}
app.kubernetes.io/name: {{ include "halffull.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "halffull.labels" -}}
{{ include "halffull.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "halffull.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "halffull.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "halffull.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "halffull.lease" -}}
{{ include "halffull.fullname" . }}-operator
{{- end }}

{{- define "halffull.certificate" -}}
{{ .Values.externalMetrics.secretName | default (printf "%s-external-metrics" (include "halffull.fullname" .)) }}
{{- end }}
