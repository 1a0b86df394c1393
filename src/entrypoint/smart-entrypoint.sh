#!/bin/sh
# Decide whether this container starts cold or continues from a checkpoint.
#
# Restore path: the restore entrypoint takes over with all arguments.  Cold start: the arguments
# take over.  Uses nothing but the shell itself, so that any image with /bin/sh will do; the restore
# entrypoint makes the same decision again, from the same evidence, in more depth.

truth() { # the values that switch something on
    case ${1:-} in 1 | [Tt][Rr][Uu][Ee] | [Yy][Ee][Ss] | [Oo][Nn]) return 0 ;; esac
    return 1
}

log() { printf '[smart-entrypoint] %s\n' "$*" >&2; }

if truth "${DEBUG:-}"; then set -x; fi

# Succeeds if the file is a JSON object that says "success": true.  White space is dropped before
# looking, the rest is left to the restore entrypoint's real parser.
says_success() {
    [ -f "$1" ] && [ -r "$1" ] || return 1
    text=
    while IFS= read -r line || [ -n "$line" ]; do text="$text $line"; done <"$1"
    set -f
    # shellcheck disable=SC2086  # splitting is the point: it removes the blanks
    set -- $text
    set +f
    text=
    for word; do text="$text$word"; done
    case $text in
    '{'*'"success":true'[,}]*) case $text in *'}') return 0 ;; esac ;;
    esac
    return 1
}

# A checkpoint baked into the image: good unless a marker says that it failed.
embedded_is_good() {
    [ -f "$1/metadata.json" ] || return 1
    [ ! -e "$1/checkpoint.done" ] || says_success "$1/checkpoint.done"
}

# The trigger file names a directory, with any white space around it, blank lines too.
trigger_dir() {
    [ -f "$1" ] && [ -r "$1" ] || return 1
    while IFS=' 	' read -r dir || [ -n "$dir" ]; do
        dir=${dir%"$cr"}
        [ -z "$dir" ] || return 0
    done <"$1"
    return 1
}

cr=$(printf '\r')
found=
find_checkpoint() {
    if truth "${WAIT_FOR_CHECKPOINT:-}"; then
        found="WAIT_FOR_CHECKPOINT is set"
        return 0
    fi
    if embedded_is_good "${EMBEDDED_CHECKPOINT_PATH:-/embedded-checkpoint}"; then
        found="Checkpoint found: embedded in the image"
        return 0
    fi
    if [ -n "${DYN_CHECKPOINT_HASH:-}" ]; then
        dir="${DYN_CHECKPOINT_PATH:-/checkpoints}/$DYN_CHECKPOINT_HASH"
        if [ ! -d "$dir" ]; then
            log "No checkpoint at $dir"
        elif says_success "$dir/checkpoint.done"; then
            found="Checkpoint found: $DYN_CHECKPOINT_HASH (checkpoint.done marker present)"
            return 0
        else
            log "Incomplete or failed checkpoint at $dir (no checkpoint.done that says success)"
        fi
    fi
    if [ -n "${DYN_CHECKPOINT_HASH:-}" ] && [ -S "${CHREK_AGENT_SOCKET-/run/chrek-agent/agent.sock}" ]; then
        found="The node's agent may have checkpoint $DYN_CHECKPOINT_HASH"
        return 0
    fi
    if trigger_dir "${RESTORE_TRIGGER:-/tmp/restore-trigger}" && says_success "$dir/checkpoint.done"; then
        found="Checkpoint found: $dir (restore trigger)"
        return 0
    fi
    return 1
}

# The restore entrypoint lies beside this script, or where images put it.
restore_entrypoint() {
    for path in "${0%/*}/restore-entrypoint" /restore-entrypoint /usr/local/bin/restore-entrypoint; do
        [ -x "$path" ] && return 0
    done
    return 1
}

# Named as the container's command as well as its entrypoint, this script is its own first argument.
while [ $# -gt 0 ]; do
    case $1 in
    "$0" | */smart-entrypoint.sh | smart-entrypoint.sh) shift ;;
    *) break ;;
    esac
done

if find_checkpoint; then
    log "$found"
    if restore_entrypoint; then
        log "CHECKPOINT RESTORE MODE"
        exec "$path" "$@"
    fi
    log "No restore-entrypoint in this image: starting cold"
fi

log "COLD START MODE"
log "No checkpoint to restore"
if [ $# -eq 0 ]; then
    log "ERROR: No checkpoint to restore and no command provided"
    exit 1
fi
log "Executing command: $*"

# One argument that holds a whole command line is run by a shell, unless it names a program.
if [ $# -eq 1 ]; then
    case $1 in
    *[[:blank:]]*) command -v -- "$1" >/dev/null 2>&1 || exec /bin/sh -c "$1" ;;
    esac
fi
exec "$@"
