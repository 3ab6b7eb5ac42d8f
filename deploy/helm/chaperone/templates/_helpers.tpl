{{- define "chaperone.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}-chaperone
{{- end }}
{{- define "chaperone.labels" -}}
app.kubernetes.io/name: chaperone
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "chaperone.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}
