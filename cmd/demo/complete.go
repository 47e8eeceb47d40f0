package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"qshm/shm"
)

// This file offers the shell the keys there are.

// completeKey completes the one key that a command is about.
func completeKey(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeKeys(cmd, args, typed)
}

// completeKeys completes one key after the other.
func completeKeys(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	infos, err := shm.List(storeOptions()...)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var keys []cobra.Completion
	for _, info := range infos {
		key := info.Key
		if key == "" || !strings.HasPrefix(key, typed) || slices.Contains(args, key) || strings.ContainsFunc(key, unicode.IsControl) {
			continue
		}
		keys = append(keys, cobra.CompletionWithDesc(key, fmt.Sprintf("%d bytes, %d attached", info.Size, info.Attached)))
	}
	return keys, cobra.ShellCompDirectiveNoFileComp
}

// completeKeyAndCommand completes a key, and after -- what the shell does.
func completeKeyAndCommand(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return completeKeys(cmd, args, typed)
}

// completeCommand completes after -- what the shell does; the key before it is
// of no segment.
func completeCommand(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
