{{- /* What the operator may do in a namespace it watches. It holds every verb that it grants a router, so it needs
neither bind nor escalate. */}}
{{- define "halffull.rules" -}}
- apiGroups: [halffull.dev]
  resources: [modeldeployments, schedulingpolicies]
  verbs: [get, list, watch]
- apiGroups: [halffull.dev]
  resources: [modeldeployments/status, schedulingpolicies/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]   # those that a ModelDeployment names, and the tokens of its routers
  verbs: [get, create]
- apiGroups: [""]
  resources: [pods]   # the arguments of adopted engines
  verbs: [list]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.adoptedWorkloads.patch }}
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, patch]
{{- end }}
{{- end }}
