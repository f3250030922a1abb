# Sourced by the build scripts: what a driver installs or compiles lies in a folder that all clones of the repository share.

# Prints the folder of driver NAME for the pins on standard input: the same pins, the same folder. It may not exist yet. Folders of
# the driver that nobody has used for 30 days are removed. PEERAGE_INTEROP_CACHE names another place for all of them.
cache_folder() {
  local root=${PEERAGE_INTEROP_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set: set it, or PEERAGE_INTEROP_CACHE}/.cache}/peerage-interop}
  local folder
  mkdir -p "$root"
  folder=$root/$1-$(cksum | tr ' ' '-')
  [ ! -d "$folder" ] || touch "$folder"
  find "$root" -mindepth 1 -maxdepth 1 -name "$1-*" -mtime +30 -exec rm -rf {} + >&2
  printf '%s\n' "$folder"
}

# Puts the finished folder NEW where FINAL is to be, unless another build was faster: installed halves are never seen there.
put_in_place() {
  if [ -d "$2" ]; then rm -rf "$1"; else mv "$1" "$2"; fi
}

# Makes LINK, beside a driver's sources, stand for TARGET. A folder that lay there before is removed.
link() {
  [ -L "$2" ] || rm -rf "$2"
  ln -sfn "$1" "$2"
}
