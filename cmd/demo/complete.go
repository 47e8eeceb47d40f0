package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/segments"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// Completion in the shell: the keys that have a segment.

const (
	noFiles = cobra.ShellCompDirectiveNoFileComp
	byShell = cobra.ShellCompDirectiveDefault // what the shell completes in commands
)

// completeKey completes one key. What to do after that, the caller says.
func completeKey(after cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, after
		}
		return completeKeys(cmd, args, typed)
	}
}

// completeKeys completes any number of keys.
func completeKeys(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	infos, err := shm.List(storeOptions()...)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var keys []cobra.Completion
	for _, info := range infos {
		if key := info.Key; segments.HasKey(info) && strings.HasPrefix(key, typed) && !slices.Contains(args, key) && !strings.ContainsFunc(key, unicode.IsControl) {
			keys = append(keys, cobra.CompletionWithDesc(key, fmt.Sprintf("%s, %d attached", units.Count(info.Size, "byte"), info.Attached)))
		}
	}
	return keys, noFiles
}
