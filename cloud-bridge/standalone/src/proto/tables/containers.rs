//! Containers of a pod.

use super::core::{LocalObjectReference, ResourceClaim};
use super::volumes::{ObjectFieldSelector, ResourceFieldSelector};
use super::{Field, Message, Shape, Ty, messages};

messages! {
    AppArmorProfile { 1 type = text, 2 localhostProfile ? text }
    Capabilities { 1 add * text, 2 drop * text }
    ConfigMapEnvSource { 1 localObjectReference + LocalObjectReference, 2 optional ? bool }
    ConfigMapKeySelector {
        1 localObjectReference + LocalObjectReference, 2 key = text, 3 optional ? bool
    }
    Container {
        1 name = text, 2 image = text, 3 command * text, 4 args * text, 5 workingDir = text,
        6 ports * ContainerPort, 7 env * EnvVar, 8 resources = ResourceRequirements,
        9 volumeMounts * VolumeMount, 10 livenessProbe ? Probe, 11 readinessProbe ? Probe,
        12 lifecycle ? Lifecycle, 13 terminationMessagePath = text, 14 imagePullPolicy = text,
        15 securityContext ? SecurityContext, 16 stdin = bool, 17 stdinOnce = bool, 18 tty = bool,
        19 envFrom * EnvFromSource, 20 terminationMessagePolicy = text,
        21 volumeDevices * VolumeDevice, 22 startupProbe ? Probe,
        23 resizePolicy * ContainerResizePolicy, 24 restartPolicy ? text
    }
    ContainerPort {
        1 name = text, 2 hostPort = int, 3 containerPort ? int, 4 protocol = text, 5 hostIP = text
    }
    ContainerResizePolicy { 1 resourceName = text, 2 restartPolicy = text }
    EnvFromSource {
        1 prefix = text, 2 configMapRef ? ConfigMapEnvSource, 3 secretRef ? SecretEnvSource
    }
    EnvVar { 1 name = text, 2 value = text, 3 valueFrom ? EnvVarSource }
    EnvVarSource {
        1 fieldRef ? ObjectFieldSelector, 2 resourceFieldRef ? ResourceFieldSelector,
        3 configMapKeyRef ? ConfigMapKeySelector, 4 secretKeyRef ? SecretKeySelector
    }
    EphemeralContainer { 1 common + EphemeralContainerCommon, 2 targetContainerName = text }
    EphemeralContainerCommon {
        1 name = text, 2 image = text, 3 command * text, 4 args * text, 5 workingDir = text,
        6 ports * ContainerPort, 7 env * EnvVar, 8 resources = ResourceRequirements,
        9 volumeMounts * VolumeMount, 10 livenessProbe ? Probe, 11 readinessProbe ? Probe,
        12 lifecycle ? Lifecycle, 13 terminationMessagePath = text, 14 imagePullPolicy = text,
        15 securityContext ? SecurityContext, 16 stdin = bool, 17 stdinOnce = bool, 18 tty = bool,
        19 envFrom * EnvFromSource, 20 terminationMessagePolicy = text,
        21 volumeDevices * VolumeDevice, 22 startupProbe ? Probe,
        23 resizePolicy * ContainerResizePolicy, 24 restartPolicy = text
    }
    ExecAction { 1 command * text }
    GRPCAction { 1 port ? int, 2 service ? text }
    HTTPGetAction {
        1 path = text, 2 port ? int_or_text, 3 host = text, 4 scheme = text,
        5 httpHeaders * HTTPHeader
    }
    HTTPHeader { 1 name = text, 2 value = text }
    Lifecycle {
        1 postStart ? LifecycleHandler, 2 preStop ? LifecycleHandler, 3 stopSignal ? text
    }
    LifecycleHandler {
        1 exec ? ExecAction, 2 httpGet ? HTTPGetAction, 3 tcpSocket ? TCPSocketAction,
        4 sleep ? SleepAction
    }
    Probe {
        1 handler + ProbeHandler, 2 initialDelaySeconds = int, 3 timeoutSeconds = int,
        4 periodSeconds = int, 5 successThreshold = int, 6 failureThreshold = int,
        7 terminationGracePeriodSeconds ? int
    }
    ProbeHandler {
        1 exec ? ExecAction, 2 httpGet ? HTTPGetAction, 3 tcpSocket ? TCPSocketAction,
        4 grpc ? GRPCAction
    }
    ResourceRequirements { 1 limits % quantity, 2 requests % quantity, 3 claims * ResourceClaim }
    SELinuxOptions { 1 user = text, 2 role = text, 3 type = text, 4 level = text }
    SeccompProfile { 1 type = text, 2 localhostProfile ? text }
    SecretEnvSource { 1 localObjectReference + LocalObjectReference, 2 optional ? bool }
    SecretKeySelector {
        1 localObjectReference + LocalObjectReference, 2 key = text, 3 optional ? bool
    }
    SecurityContext {
        1 capabilities ? Capabilities, 2 privileged ? bool, 3 seLinuxOptions ? SELinuxOptions,
        4 runAsUser ? int, 5 runAsNonRoot ? bool, 6 readOnlyRootFilesystem ? bool,
        7 allowPrivilegeEscalation ? bool, 8 runAsGroup ? int, 9 procMount ? text,
        10 windowsOptions ? WindowsSecurityContextOptions, 11 seccompProfile ? SeccompProfile,
        12 appArmorProfile ? AppArmorProfile
    }
    SleepAction { 1 seconds ? int }
    TCPSocketAction { 1 port ? int_or_text, 2 host = text }
    VolumeDevice { 1 name = text, 2 devicePath = text }
    VolumeMount {
        1 name = text, 2 readOnly = bool, 3 mountPath = text, 4 subPath = text,
        5 mountPropagation ? text, 6 subPathExpr = text, 7 recursiveReadOnly ? text
    }
    WindowsSecurityContextOptions {
        1 gmsaCredentialSpecName ? text, 2 gmsaCredentialSpec ? text, 3 runAsUserName ? text,
        4 hostProcess ? bool
    }
}
