//! Pods: scheduling, network and status.

use super::containers::{
    AppArmorProfile, Container, EphemeralContainer, ResourceRequirements, SELinuxOptions,
    SeccompProfile, WindowsSecurityContextOptions,
};
use super::core::LocalObjectReference;
use super::meta::{LabelSelector, ObjectMeta};
use super::volumes::Volume;
use super::{Field, Message, Shape, Ty, messages};

messages! {
    Affinity {
        1 nodeAffinity ? NodeAffinity, 2 podAffinity ? PodAffinity,
        3 podAntiAffinity ? PodAntiAffinity
    }
    ContainerState {
        1 waiting ? ContainerStateWaiting, 2 running ? ContainerStateRunning,
        3 terminated ? ContainerStateTerminated
    }
    ContainerStateRunning { 1 startedAt = time }
    ContainerStateTerminated {
        1 exitCode ? int, 2 signal = int, 3 reason = text, 4 message = text, 5 startedAt = time,
        6 finishedAt = time, 7 containerID = text
    }
    ContainerStateWaiting { 1 reason = text, 2 message = text }
    ContainerStatus {
        1 name = text, 2 state = ContainerState, 3 lastState = ContainerState, 4 ready ? bool,
        5 restartCount ? int, 6 image = text, 7 imageID = text, 8 containerID = text,
        9 started ? bool, 10 allocatedResources % quantity, 11 resources = ResourceRequirements,
        12 volumeMounts * VolumeMountStatus, 13 user ? ContainerUser,
        14 allocatedResourcesStatus * ResourceStatus, 15 stopSignal ? text
    }
    ContainerUser { 1 linux ? LinuxContainerUser }
    HostAlias { 1 ip = text, 2 hostnames * text }
    HostIP { 1 ip = text }
    LinuxContainerUser { 1 uid ? int, 2 gid ? int, 3 supplementalGroups * int }
    NodeAffinity {
        1 requiredDuringSchedulingIgnoredDuringExecution ? NodeSelector,
        2 preferredDuringSchedulingIgnoredDuringExecution * PreferredSchedulingTerm
    }
    NodeSelector { 1 nodeSelectorTerms * NodeSelectorTerm }
    NodeSelectorRequirement { 1 key = text, 2 operator = text, 3 values * text }
    NodeSelectorTerm {
        1 matchExpressions * NodeSelectorRequirement, 2 matchFields * NodeSelectorRequirement
    }
    Pod { 1 metadata = ObjectMeta, 2 spec = PodSpec, 3 status = PodStatus }
    PodAffinity {
        1 requiredDuringSchedulingIgnoredDuringExecution * PodAffinityTerm,
        2 preferredDuringSchedulingIgnoredDuringExecution * WeightedPodAffinityTerm
    }
    PodAffinityTerm {
        1 labelSelector ? LabelSelector, 2 namespaces * text, 3 topologyKey = text,
        4 namespaceSelector ? LabelSelector, 5 matchLabelKeys * text, 6 mismatchLabelKeys * text
    }
    PodAntiAffinity {
        1 requiredDuringSchedulingIgnoredDuringExecution * PodAffinityTerm,
        2 preferredDuringSchedulingIgnoredDuringExecution * WeightedPodAffinityTerm
    }
    PodCondition {
        1 type = text, 2 status = text, 3 lastProbeTime = time, 4 lastTransitionTime = time,
        5 reason = text, 6 message = text, 7 observedGeneration = int
    }
    PodDNSConfig { 1 nameservers * text, 2 searches * text, 3 options * PodDNSConfigOption }
    PodDNSConfigOption { 1 name = text, 2 value ? text }
    PodIP { 1 ip = text }
    PodOS { 1 name = text }
    PodReadinessGate { 1 conditionType = text }
    PodResourceClaim {
        1 name = text, 3 resourceClaimName ? text, 4 resourceClaimTemplateName ? text
    }
    PodResourceClaimStatus { 1 name = text, 2 resourceClaimName ? text }
    PodSchedulingGate { 1 name = text }
    PodSecurityContext {
        1 seLinuxOptions ? SELinuxOptions, 2 runAsUser ? int, 3 runAsNonRoot ? bool,
        4 supplementalGroups * int, 5 fsGroup ? int, 6 runAsGroup ? int, 7 sysctls * Sysctl,
        8 windowsOptions ? WindowsSecurityContextOptions, 9 fsGroupChangePolicy ? text,
        10 seccompProfile ? SeccompProfile, 11 appArmorProfile ? AppArmorProfile,
        12 supplementalGroupsPolicy ? text, 13 seLinuxChangePolicy = text
    }
    PodSpec {
        1 volumes * Volume, 2 containers * Container, 3 restartPolicy = text,
        4 terminationGracePeriodSeconds ? int, 5 activeDeadlineSeconds ? int, 6 dnsPolicy = text,
        7 nodeSelector % text, 8 serviceAccountName = text, 9 serviceAccount = text,
        10 nodeName = text, 11 hostNetwork = bool, 12 hostPID = bool, 13 hostIPC = bool,
        14 securityContext ? PodSecurityContext, 15 imagePullSecrets * LocalObjectReference,
        16 hostname = text, 17 subdomain = text, 18 affinity ? Affinity, 19 schedulerName = text,
        20 initContainers * Container, 21 automountServiceAccountToken ? bool,
        22 tolerations * Toleration, 23 hostAliases * HostAlias, 24 priorityClassName = text,
        25 priority ? int, 26 dnsConfig ? PodDNSConfig, 27 shareProcessNamespace ? bool,
        28 readinessGates * PodReadinessGate, 29 runtimeClassName ? text,
        30 enableServiceLinks ? bool, 31 preemptionPolicy ? text, 32 overhead % quantity,
        33 topologySpreadConstraints * TopologySpreadConstraint,
        34 ephemeralContainers * EphemeralContainer, 35 setHostnameAsFQDN ? bool, 36 os ? PodOS,
        37 hostUsers ? bool, 38 schedulingGates * PodSchedulingGate,
        39 resourceClaims * PodResourceClaim, 40 resources = ResourceRequirements
    }
    PodStatus {
        1 phase = text, 2 conditions * PodCondition, 3 message = text, 4 reason = text,
        5 hostIP = text, 6 podIP = text, 7 startTime = time, 8 containerStatuses * ContainerStatus,
        9 qosClass = text, 10 initContainerStatuses * ContainerStatus, 11 nominatedNodeName = text,
        12 podIPs * PodIP, 13 ephemeralContainerStatuses * ContainerStatus, 14 resize = text,
        15 resourceClaimStatuses * PodResourceClaimStatus, 16 hostIPs * HostIP,
        17 observedGeneration = int
    }
    PreferredSchedulingTerm { 1 weight ? int, 2 preference = NodeSelectorTerm }
    ResourceHealth { 1 resourceID = text, 2 health = text }
    ResourceStatus { 1 name = text, 2 resources * ResourceHealth }
    Sysctl { 1 name = text, 2 value = text }
    Toleration {
        1 key = text, 2 operator = text, 3 value = text, 4 effect = text, 5 tolerationSeconds ? int
    }
    TopologySpreadConstraint {
        1 maxSkew ? int, 2 topologyKey = text, 3 whenUnsatisfiable = text,
        4 labelSelector ? LabelSelector, 5 minDomains ? int, 6 nodeAffinityPolicy ? text,
        7 nodeTaintsPolicy ? text, 8 matchLabelKeys * text
    }
    VolumeMountStatus {
        1 name = text, 2 mountPath = text, 3 readOnly = bool, 4 recursiveReadOnly ? text
    }
    WeightedPodAffinityTerm { 1 weight ? int, 2 podAffinityTerm = PodAffinityTerm }
}
